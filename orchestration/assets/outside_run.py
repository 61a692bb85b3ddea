"""A run in Dagster's list for what was made outside Dagster, such as by `make run` or in a terminal.

Checks need a run: Dagster keeps one evaluation without a run per check and partition, and a second is an error. The run
begins and ends with an event, since Dagster's pages say "Starting…" of a run without a beginning for ever.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.events import EngineEventData, StepMaterializationData, StepSuccessData

from orchestration.assets.partitions import SCENARIOS

RUN_NAME = "made_outside_dagster"  # as Dagster lists such a run
STEP = "told_to_dagster"  # its only step: the page of a run without any is an error
EARLIER_NAME = "dvc_repro"  # the same, of an earlier release, whose runs have neither a beginning nor an end
PARTITION_TAG, MADE_BY_TAG = "dagster/partition", "made by"


def report_checks(
    instance: dg.DagsterInstance,
    scenario: str,
    results: Iterable[tuple[dg.AssetCheckResult, bool]],
    made_by: str,
    summary: str,
    made: dg.AssetMaterialization | None = None,
    tags: Mapping[str, str] | None = None,
    skipped: Iterable[dg.AssetCheckKey] = (),
) -> None:
    """Report results of asset checks in a run of their own, which has succeeded.

    Each names the newest materialisation of its asset; Dagster shows no check of another one. Without the name, it
    would compare the time with that of the check, which it keeps in whole seconds only.

    Args:
        instance: Dagster's instance.
        scenario: the partition of the checks.
        results: each result, with its asset and name, and whether a failure blocks what comes after the asset.
        made_by: the command that made what was checked; a tag of the run.
        summary: one line for the log of the run.
        made: materialisation to be reported first, in the same run.
        tags: further tags of the run.
        skipped: checks without a result: Dagster calls a check skipped that was planned and never came.
    """
    with _outside_run(instance, {PARTITION_TAG: scenario, MADE_BY_TAG: made_by, **(tags or {})}, summary) as run:
        if made is not None:
            report_made(instance, made, run.run_id, RUN_NAME)
        for result, blocking in results:
            evaluation = evaluation_of(result, blocking, scenario, _newest(instance, result.asset_key, scenario))
            _report(instance, run, dg.DagsterEventType.ASSET_CHECK_EVALUATION, data=evaluation)
        for key in skipped:
            planned = AssetCheckEvaluationPlanned(
                asset_key=key.asset_key, check_name=key.name,
                partitions_subset=SCENARIOS.subset_with_partition_keys([scenario]),
            )  # fmt: skip
            _report(instance, run, dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, data=planned)


def end_earlier_runs(instance: dg.DagsterInstance) -> int:
    """Give runs of earlier releases the beginning and the end that they lack, and return how many lacked one.

    Both are at the time when the run was listed, so that it stays where it was in Dagster's list.
    """
    count = 0
    for found in instance.get_run_records(dg.RunsFilter(job_name=EARLIER_NAME)):
        run, moment = found.dagster_run, found.create_timestamp.timestamp()
        lacking = {dg.DagsterEventType.RUN_START: found.start_time, dg.DagsterEventType.RUN_SUCCESS: found.end_time}
        count += None in lacking.values()
        for kind in [kind for kind, known in lacking.items() if known is None]:
            event = dg.DagsterEvent(event_type_value=kind.value, job_name=EARLIER_NAME)
            instance.report_dagster_event(event, run_id=run.run_id, timestamp=moment)
    return count


def evaluation_of(
    result: dg.AssetCheckResult,
    blocking: bool = False,
    partition: str | None = None,
    checked: AssetCheckEvaluationTargetMaterializationData | None = None,
) -> dg.AssetCheckEvaluation:
    """Return the event of a result that names its asset and check.

    Args:
        result: outcome of a check.
        blocking: whether a failure stops what comes after the asset.
        partition: the scenario; None for a check of all.
        checked: the materialisation that was checked; None if the asset has none.
    """
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
        description=result.description,
        blocking=blocking,
        partition=partition,
        target_materialization_data=checked,
    )


def report_made(instance: dg.DagsterInstance, made: dg.AssetMaterialization, run_id: str, job_name: str) -> None:
    """Report a materialisation as made in a run, which may have ended."""
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION.value
    event = dg.DagsterEvent(kind, job_name, event_specific_data=StepMaterializationData(made))
    instance.report_dagster_event(event, run_id=run_id)


def report_again(instance: dg.DagsterInstance, made: dg.AssetMaterialization, run_id: str, job_name: str) -> None:
    """Report a materialisation that a run made with other metadata, and the run's checks of it.

    Dagster calls a check missing that was of an earlier materialisation.
    """
    report_made(instance, made, run_id, job_name)
    checked, kind = _newest(instance, made.asset_key, str(made.partition)), dg.DagsterEventType.ASSET_CHECK_EVALUATION
    logged = [entry.get_dagster_event() for entry in instance.all_logs(run_id, of_type=kind)]
    known = {event.asset_check_evaluation_data.check_name: event.asset_check_evaluation_data for event in logged
             if event.asset_check_evaluation_data.asset_key == made.asset_key
             and event.asset_check_evaluation_data.partition == made.partition}  # fmt: skip
    for one in known.values():
        result = dg.AssetCheckResult(
            passed=one.passed, asset_key=one.asset_key, check_name=one.check_name, metadata=one.metadata,
            severity=one.severity, description=one.description,
        )  # fmt: skip
        again = evaluation_of(result, bool(one.blocking), made.partition, checked)
        instance.report_dagster_event(dg.DagsterEvent(kind.value, job_name, event_specific_data=again), run_id=run_id)


def _newest(
    instance: dg.DagsterInstance, asset: dg.AssetKey | None, scenario: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Return the newest materialisation of a scenario's asset, as checks name it; None if there is none."""
    if asset is None:
        return None
    wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[scenario])
    for found in instance.fetch_materializations(wanted, limit=1).records:
        return AssetCheckEvaluationTargetMaterializationData(
            storage_id=found.storage_id, run_id=found.run_id, timestamp=found.timestamp
        )
    return None


@contextmanager
def _outside_run(instance: dg.DagsterInstance, tags: dict[str, str], summary: str) -> Iterator[dg.DagsterRun]:
    """Yield a run that has begun; it ends with the block."""
    # a killed process must leave no run in progress, for which its scenario would wait: the run counts as ended until
    # the next event names this process, and as lost after that (orchestration.assets.lost_runs)
    run = instance.create_run_for_job(_job(), tags=tags, status=dg.DagsterRunStatus.SUCCESS)
    begun = time.monotonic()
    instance.report_engine_event(summary, run, EngineEventData.in_process(os.getpid()))
    _report(instance, run, dg.DagsterEventType.RUN_START, f"made by {tags[MADE_BY_TAG]}, not by Dagster")
    _report(instance, run, dg.DagsterEventType.STEP_START)
    try:
        yield run
    except BaseException as error:
        instance.report_run_failed(run, f"not all of it could be told to Dagster: {error}")
        raise
    took = StepSuccessData(duration_ms=1000 * (time.monotonic() - begun))
    _report(instance, run, dg.DagsterEventType.STEP_SUCCESS, data=took)
    _report(instance, run, dg.DagsterEventType.RUN_SUCCESS, "told to Dagster")


def _job() -> dg.JobDefinition:
    """Return what Dagster's page of such a run shows as its plan. It is no job of ours: nobody can launch it."""

    @dg.op(name=STEP)
    def told() -> None:
        """Stand for what was done elsewhere."""

    @dg.job(name=RUN_NAME)
    def outside() -> None:
        told()

    return outside


def _report(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    kind: dg.DagsterEventType,
    message: str | None = None,
    data: dg.AssetCheckEvaluation | AssetCheckEvaluationPlanned | StepSuccessData | None = None,
) -> None:
    step = STEP if kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS) else None
    event = dg.DagsterEvent(kind.value, RUN_NAME, step_key=step, message=message, event_specific_data=data)
    instance.report_dagster_event(event, run_id=run.run_id)
