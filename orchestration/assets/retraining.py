"""The asset `ingest`, and the job `retrain`, which the sensor and the schedule start, one run per line at a time.

Only Dagster has `ingest`. `dvc repro` trains on the images in data/raw/<line>/arrived and never looks into an inbox.
"""

from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.asset_metadata import table
from orchestration.assets.failure import failing
from orchestration.assets.machines import has_several_machines
from orchestration.assets.partitions import INGEST, SCENARIOS, refuse_unknown, sync
from orchestration.assets.registry_assets import CHAMPION
from orchestration.line.arrivals import LineFolders, batches
from orchestration.line.ingest import Ingested, ingest
from orchestration.line.lines import known_lines
from orchestration.line.share import share
from orchestration.pipeline import dvc
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS

PARTITION_TAG, DATA_VERSION_TAG = "dagster/partition", "dagster/data_version"
FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
NO_LINE = "no production line"  # outcome of the ingest of a fixed data set
NOTHING = dg.DataVersion("none")
SHOWN = 20  # files listed in the metadata

retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.assets(CHAMPION).upstream() | dg.AssetSelection.assets("drift"),
    description="A production line: take in what arrived, then everything up to the champion, and drift. The sensor "
    "`arrivals` and the schedule `nightly` start it; what did not change is not computed again",
)


def ingest_asset(root: Path) -> dg.AssetsDefinition:
    """Return the asset `ingest` of the repository at `root`."""

    @dg.asset(
        name=INGEST,
        partitions_def=SCENARIOS,
        group_name="data",
        kinds={"dvc", "pillow"},
        description="What arrived in data/incoming of the line: good images go to raw, bad files to quarantine. "
        "Nothing for a scenario that is no production line",
    )
    def take_in(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        line = context.partition_key
        with failing(context):
            params = load_params(root / PARAMS)
            found = known_lines(root, params)
            refuse_unknown(line, params, found)
            if line not in found:
                return dg.MaterializeResult(data_version=NOTHING, metadata={"outcome": NO_LINE})
            done = ingest(root, line, params.arrival.stable_seconds, dvc.add)
            if has_several_machines(context.instance):
                share(root, line)  # also if nothing is new, because an earlier one may have failed
        context.log.info(str(done))
        arrived = LineFolders(root, line).arrived
        version = dvc.tracked_version(root, LineFolders(root, line).relative(arrived))
        data_version = dg.DataVersion(version) if version else NOTHING
        return dg.MaterializeResult(data_version=data_version, metadata=_metadata(root, done))

    return take_in


def follow_params(instance: dg.DagsterInstance, root: Path, params: Params) -> list[str]:
    """Make the partitions equal to the scenarios of params.yaml and the lines; return the names that were taken away.

    A scenario of a fixed data set has nothing to take in. Dagster is told so at once: the dialog that launches
    `run_scenario`, which leaves `ingest` out, would otherwise warn that data is missing.
    """
    lines = known_lines(root, params)
    gone = sync(instance, [*params.scenarios, *lines])
    told = instance.get_materialized_partitions(dg.AssetKey(INGEST))
    for scenario in sorted({*params.scenarios} - {*lines} - told):
        tags = {DATA_VERSION_TAG: NOTHING.value}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(INGEST, partition=scenario, metadata={"outcome": NO_LINE}, tags=tags)
        )
    return gone


def run_in_progress(instance: dg.DagsterInstance, line: str) -> str | None:
    """Return why the line must wait, because a run of it is queued or running, or None."""
    wanted = dg.RunsFilter(tags={PARTITION_TAG: line}, statuses=list(set(dg.DagsterRunStatus) - FINISHED))
    for run in instance.get_runs(wanted, limit=1):
        return f"run {run.run_id[:8]} of it is {run.status.value.lower()}"
    return None


def _metadata(root: Path, done: Ingested) -> dict[str, Any]:
    others = [arrival for arrival in done.arrivals if arrival.fate != "raw"]
    rows = [(repr(arrival.path), arrival.fate, arrival.detail) for arrival in others[:SHOWN]]
    unusual = {
        "batch": max((arrival.batch for arrival in done.arrivals), default=0),
        "quarantined": done.count("quarantine"),
        "duplicates": done.count("duplicate"),
        "files not complete yet": done.waiting,
        "files that cannot be read": done.unreadable,
    }
    return {
        "outcome": "taken in" if done.arrivals else "nothing new",
        "new images": done.count("raw"),
        **{name: count for name, count in unusual.items() if count},
        "images of the line": len(batches(root, done.line)),
        **({"not taken as images": table(("file", "fate", "why"), rows)} if others else {}),
    }
