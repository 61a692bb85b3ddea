"""The jobs of several machines. Inboxes and promotion stay at home; training goes to whichever worker is free.

`take_in` runs at home, because the cameras' folders are there, and hands on what it took in. Its success asks for the
job `train` of the line, and the success of `train` for `promote`, which moves the alias of the registry. A worker that
was given up and comes back thus promotes nothing: its run has failed. Jobs at home run on the queue `home`, which a
worker at home serves; with Kubernetes, they are pods like the others and have to reach the inboxes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.assets.machines import AT_HOME
from orchestration.assets.partitions import INGEST
from orchestration.assets.registry_assets import CHALLENGER, CHAMPION
from orchestration.assets.retraining import PARTITION_TAG
from orchestration.pipeline.pipes import DRIFT

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

take_in = dg.define_asset_job(
    "take_in",  # Dagster lets no job have the name of an asset
    selection=dg.AssetSelection.assets(INGEST),
    tags=AT_HOME,
    description="A production line, at home: take in what arrived and hand it on. The job `train` follows",
)
train = dg.define_asset_job(
    "train",
    selection=(dg.AssetSelection.assets(CHALLENGER).upstream() | dg.AssetSelection.assets(DRIFT))
    - dg.AssetSelection.assets(INGEST),
    description="One scenario from raw data to the challenger, on a worker. The job `promote` follows if it succeeds",
)
promote = dg.define_asset_job(
    "promote",
    selection=dg.AssetSelection.assets(CHAMPION),
    tags=AT_HOME,
    description="The newest challenger of a scenario becomes champion, at home",
)
cluster_jobs = [take_in, train, promote]


def cluster_sensors() -> list[dg.SensorDefinition]:
    """Return the sensors that let one job follow another."""
    return [_following(take_in, train), _following(train, promote)]


def _following(
    before: "UnresolvedAssetJobDefinition", job: "UnresolvedAssetJobDefinition"
) -> dg.RunStatusSensorDefinition:
    @dg.run_status_sensor(
        name=f"{job.name}_after_{before.name}",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[before],
        request_job=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"A run of `{before.name}` that succeeded asks for a run of `{job.name}` of the same scenario",
    )
    def follow(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        partition = context.dagster_run.tags.get(PARTITION_TAG)
        if partition is None:  # a run over a range of partitions has no single one
            yield dg.SkipReason(f"run {context.dagster_run.run_id[:8]} is of no single scenario")
        else:
            yield dg.RunRequest(run_key=context.dagster_run.run_id, partition_key=partition)

    return follow
