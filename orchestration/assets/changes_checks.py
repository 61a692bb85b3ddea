"""The checks `up_to_date` of the assets `changes/STAGE_changes`: a yellow badge where DVC would run a stage again.

Dagster shows "Unsynced" of one partition only. The badge of a check is seen in the lineage, where a node shows its
rows, whatever partition is looked at; its text names the scenarios and the reasons. The sensor `staleness` evaluates
the checks when something has changed, and people may run them by hand. The checks have no partition, because one text
is of all scenarios. They are at `changes/STAGE_changes` and not at the stage's asset, because a run of an asset
evaluates its checks, and to ask DVC takes seconds.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import dagster as dg

from orchestration.assets.asset_metadata import table
from orchestration.assets.changes import change_key
from orchestration.assets.failure import failing
from orchestration.assets.outside_run import evaluation_of
from orchestration.assets.partitions import Pattern, stages_of
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.staleness import states, why_behind

UP_TO_DATE = "up_to_date"
SHOWN = 3  # scenarios in the text; the table has all

Behind = Mapping[str, str]  # why a scenario's stage is not up to date, by asset name


def results(assets: Iterable[str], scenarios: Mapping[str, Behind]) -> Iterator[dg.AssetCheckResult]:
    """Yield the result of each asset's check.

    Args:
        assets: names of the stages' assets.
        scenarios: why stages are not up to date, by scenario.
    """
    for asset in assets:
        rows = [(scenario, why[asset]) for scenario, why in scenarios.items() if asset in why]
        named = "; ".join(f"{scenario}: {why}" for scenario, why in rows[:SHOWN])
        more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        yield dg.AssetCheckResult(
            asset_key=change_key(asset),
            check_name=UP_TO_DATE,
            passed=not rows,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"DVC would run it again for {named}{more}" if rows else "DVC would run it for no scenario",
            metadata={"scenarios": table(("scenario", "because"), rows)} if rows else {},
        )


def report(instance: dg.DagsterInstance, found: Iterable[dg.AssetCheckResult]) -> None:
    """Report results to Dagster without a run, which is possible since these checks have no partition."""
    for one in found:
        instance.report_runless_asset_event(evaluation_of(one))


def changes_checks(root: Path, found: Mapping[str, Pattern]) -> dg.AssetChecksDefinition:
    """Return the checks of the repository at `root`, as people may run them.

    Args:
        root: root of the repository.
        found: the stages of any scenario by asset name, causes first.
    """

    @dg.multi_asset_check(
        name=UP_TO_DATE,
        specs=[
            dg.AssetCheckSpec(
                UP_TO_DATE,
                asset=change_key(asset),
                description="Results that are older than the settings, the code or the data they are made from. "
                "If it warns: run the scenarios that it names, by `run_scenario` or `make run`.",
            )
            for asset in found
        ],
        can_subset=True,
    )
    def up_to_date(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        chosen = {key.asset_key for key in context.selected_asset_check_keys}
        with failing(context):
            params = load_params(root / PARAMS)
            told = {}
            for scenario, by_stage in retry_when_busy(states)(root, params, list(params.scenarios)).items():
                stages = stages_of(found, params, scenario)
                told[scenario] = why_behind(
                    {asset: by_stage[stage] for asset, stage in stages.items() if stage in by_stage}
                )
        yield from results([asset for asset in found if change_key(asset) in chosen], told)

    return up_to_date
