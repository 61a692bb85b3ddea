"""Reports to Dagster after a plain `dvc repro`, so that its UI shows the same outputs.

Every asset whose data version in dvc.lock differs from the version that Dagster knows gets a materialisation with the
same data version, pictures and checks. A second run reports nothing.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.asset_metadata import in_order, metadata
from orchestration.assets.changes import Changes, names_its_changes, versions
from orchestration.assets.dvc_assets import RAN, VERSION_TAG, check_results, report_path, stage_metadata
from orchestration.assets.outside_run import end_earlier_runs, report_checks
from orchestration.assets.partitions import Pattern, patterns, stages_of
from orchestration.assets.retraining import follow_params
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS

MADE_BY = "dvc repro or make run"


def record_materialisations(root: Path, scenarios: Sequence[str]) -> int:
    """Report the outputs of `scenarios` in dvc.lock to Dagster's instance in DAGSTER_HOME. Return how many were new."""
    params, lock = load_params(root / PARAMS), dvc.read_lock(root)
    found = patterns(root, params)
    with recorded_instance(root) as instance:
        end_earlier_runs(instance)
        follow_params(instance, root, params)
        backfill = Backfill(instance, root, found)
        return sum(backfill.record(scenario, stages_of(found, params, scenario), lock) for scenario in scenarios)


@contextmanager
def recorded_instance(root: Path) -> Iterator[dg.DagsterInstance]:
    """Yield Dagster's instance in DAGSTER_HOME, or in the folder that `make ui` uses if that is not set."""
    home = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = home or str((root / ".dagster").absolute())
    try:
        with dg.DagsterInstance.get() as instance:
            yield instance
    finally:
        if home is None:
            del os.environ["DAGSTER_HOME"]


class Backfill:
    """Reports of what DVC made without Dagster.

    Args:
        instance: Dagster's instance.
        root: root of the repository.
        found: the stages of any scenario by asset name.
    """

    def __init__(self, instance: dg.DagsterInstance, root: Path, found: Mapping[str, Pattern]) -> None:
        self.instance, self.root, self.found = instance, root, found

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
        changes, known = Changes(self.instance, self.found, scenario), versions(lock, stages)
        reported, checks = list[str](), list[dg.AssetCheckResult]()
        for asset, version in known.items():
            if (fresh is not None and asset not in fresh) or self._known_version(asset, scenario) == version:
                continue
            stage = stages[asset]
            shown = metadata(dvc.outputs(lock, stage), self.root, scenario)
            shown = in_order({"outcome": f"made by {MADE_BY}", **stage_metadata(lock, stage), **shown})
            late = fresh is None and changes.is_out_of_date(asset)
            tags = changes.provenance(asset, known, self.root, late)
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(asset, metadata=shown, partition=scenario, tags=tags)
            )
            for check in self.found[asset].template.meta.get("checks", []):
                if (report := report_path(stage, self.root)).exists():
                    checks.append(check_results(report, asset, check))
            reported.append(asset)
        if checks:
            summary = f"{scenario}: {', '.join(reported)} made outside Dagster, by {MADE_BY}"
            results, tags = [(check, True) for check in checks], {RAN: ", ".join(reported)}
            report_checks(self.instance, scenario, results, MADE_BY, summary, tags=tags)
        return len(reported)

    def _known_version(self, asset: str, scenario: str) -> str | None:
        """Return the version that Dagster knows, or None if its record does not say what was true of it."""
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[scenario])
        for found in self.instance.fetch_materializations(wanted, limit=1).records:
            event = found.asset_materialization
            if event is not None and names_its_changes(event, asset):
                return (event.tags or {}).get(VERSION_TAG)
        return None
