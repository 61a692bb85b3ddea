"""Reports to Dagster after a plain `dvc repro`, so that its UI shows the same outputs.

Every asset whose data version in dvc.lock differs from the version that Dagster knows gets a materialisation with the
same data version, pictures and checks. A second run reports nothing.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg

from orchestration.assets.asset_metadata import metadata
from orchestration.assets.changes import Changes, names_its_changes, versions
from orchestration.assets.dvc_assets import VERSION_TAG, check_results, report_path
from orchestration.assets.partitions import Pattern, patterns, stages_of, sync
from orchestration.line.lines import known_lines
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS

RUN_NAME = "dvc_repro"  # as Dagster lists what plain `dvc repro` did


def record_materialisations(root: Path, scenarios: Sequence[str]) -> int:
    """Report the outputs of `scenarios` in dvc.lock to Dagster's instance in DAGSTER_HOME. Return how many were new."""
    os.environ.setdefault("DAGSTER_HOME", str(root / ".dagster"))
    params, lock = load_params(root / PARAMS), dvc.read_lock(root)
    found = patterns(root, params)
    with dg.DagsterInstance.get() as instance:
        sync(instance, [*params.scenarios, *known_lines(root, params)])
        backfill = Backfill(instance, root, found)
        return sum(backfill.record(scenario, stages_of(found, params, scenario), lock) for scenario in scenarios)


class Backfill:
    """Reports of what DVC made without Dagster.

    Args:
        instance: Dagster's instance.
        root: root of the repository.
        found: the stages of any scenario by asset name.
    """

    def __init__(self, instance: dg.DagsterInstance, root: Path, found: Mapping[str, Pattern]) -> None:
        self.instance, self.root, self.found = instance, root, found
        self._run_id = ""  # of the checks; made when there is one to report

    def record(
        self, scenario: str, stages: Mapping[str, str], lock: Mapping[str, Any], fresh: Collection[str] | None = None
    ) -> int:
        """Report the outputs of stages that Dagster does not know yet, and return of how many stages.

        Args:
            scenario: name of the scenario.
            stages: its stages by asset name.
            lock: content of dvc.lock.
            fresh: assets that DVC finds up to date, the only ones to be reported; None if it was not asked.
        """
        changes, known, reported = Changes(self.instance, self.found, scenario), versions(lock, stages), 0
        for asset, version in known.items():
            if (fresh is not None and asset not in fresh) or self._known_version(asset, scenario) == version:
                continue
            stage = stages[asset]
            shown = metadata(dvc.outputs(lock, stage), self.root, scenario)
            shown = {"outcome": "ran by dvc repro", "dvc stage": stage, **shown}
            late = fresh is None and changes.is_out_of_date(asset)
            tags = changes.provenance(asset, known, self.root, late)
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset, metadata=shown, partition=scenario, tags=tags)
            )
            for check in self.found[asset].template.meta.get("checks", []):
                if (report := report_path(stage, self.root)).exists():
                    self._report_check(check_results(report, asset, check), scenario)
            reported += 1
        return reported

    def _known_version(self, asset: str, scenario: str) -> str | None:
        """Return the version that Dagster knows, or None if its record does not say what was true of it."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[scenario])
        for found in self.instance.fetch_materializations(wanted, limit=1).records:
            event = found.asset_materialization
            if event is not None and names_its_changes(event, asset):
                return (event.tags or {}).get(VERSION_TAG)
        return None

    def _report_check(self, result: dg.AssetCheckResult, scenario: str) -> None:
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
        self._run_id = self._run_id or self._new_run()
        self.instance.report_dagster_event(event, run_id=self._run_id)

    def _new_run(self) -> str:
        """Add a finished run to Dagster's list, and return its id.

        Checks need one: Dagster keeps one evaluation without a run per check and partition, and a second is an error.
        """
        run = dg.DagsterRun(job_name=RUN_NAME, run_id=str(uuid4()), status=dg.DagsterRunStatus.SUCCESS)
        return self.instance.add_run(run).run_id
