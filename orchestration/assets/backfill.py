"""Reports to Dagster after a plain `dvc repro`, so that its UI shows the same outputs.

Every asset whose data version in dvc.lock differs from the version that Dagster knows gets a materialisation with the
same data version, pictures and checks. A second run reports nothing.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import dagster as dg

from orchestration.assets.asset_metadata import metadata
from orchestration.assets.dvc_assets import VERSION_TAG, check_results, report_path
from orchestration.assets.partitions import patterns, sync
from orchestration.line.lines import known_lines
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS

RUN_NAME = "dvc_repro"  # as Dagster lists what plain `dvc repro` did


def record_materialisations(root: Path, scenarios: Sequence[str]) -> int:
    """Report the outputs of `scenarios` in dvc.lock to Dagster's instance in DAGSTER_HOME. Return how many were new."""
    os.environ.setdefault("DAGSTER_HOME", str(root / ".dagster"))
    params, lock = load_params(root / PARAMS), dvc.read_lock(root)
    found, reported, run_id = patterns(root, params), 0, ""
    with dg.DagsterInstance.get() as instance:
        sync(instance, [*params.scenarios, *known_lines(root, params)])
        for scenario in scenarios:
            for asset, where in found.items():
                stage = where.stage(scenario, params.scenario(scenario).dataset)
                paths = dvc.outputs(lock, stage)
                version = dvc.data_version(lock, stage)
                if not paths or _known_version(instance, asset, scenario) == version:
                    continue
                shown = {"outcome": "ran by dvc repro", "dvc stage": stage, **metadata(paths, root, scenario)}
                event = dg.AssetMaterialization(asset, metadata=shown, partition=scenario, tags={VERSION_TAG: version})
                instance.report_runless_asset_event(event)
                for check in where.template.meta.get("checks", []):
                    run_id = run_id or _new_run(instance)
                    result = check_results(report_path(stage, root), asset, check)
                    _report_check(instance, run_id, result, scenario)
                reported += 1
    return reported


def _new_run(instance: dg.DagsterInstance) -> str:
    """Add a finished run to Dagster's list, and return its id.

    Checks need one: Dagster keeps a single evaluation without a run per check and partition, and a second is an error.
    """
    run = dg.DagsterRun(job_name=RUN_NAME, run_id=str(uuid4()), status=dg.DagsterRunStatus.SUCCESS)
    return instance.add_run(run).run_id


def _report_check(instance: dg.DagsterInstance, run_id: str, result: dg.AssetCheckResult, scenario: str) -> None:
    assert result.asset_key is not None and result.check_name is not None
    evaluation = dg.AssetCheckEvaluation(
        asset_key=result.asset_key,
        check_name=result.check_name,
        passed=result.passed,
        metadata=result.metadata,
        description=result.description,
        blocking=True,
        partition=scenario,
    )
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
    event = dg.DagsterEvent(event_type_value=kind, job_name=RUN_NAME, event_specific_data=evaluation)
    instance.report_dagster_event(event, run_id=run_id)


def _known_version(instance: dg.DagsterInstance, asset: str, scenario: str) -> str | None:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[scenario])
    for found in instance.fetch_materializations(wanted, limit=1).records:
        if found.asset_materialization and found.asset_materialization.tags:
            return found.asset_materialization.tags.get(VERSION_TAG)
    return None
