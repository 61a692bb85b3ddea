"""The definitions that Dagster loads: assets from dvc.yaml, jobs, and the sensor and schedule of production lines."""

import os
from pathlib import Path

import dagster as dg

from orchestration.assets.benchmark_assets import benchmark_assets
from orchestration.assets.changes import change_specs
from orchestration.assets.changes_checks import changes_checks
from orchestration.assets.cluster_jobs import cluster_jobs, cluster_sensors, take_in
from orchestration.assets.drift_asset import drift_asset, drift_job
from orchestration.assets.dvc_assets import dvc_assets
from orchestration.assets.inspection import inspect_job, inspected_asset, inspection_sensor
from orchestration.assets.machines import has_several_machines
from orchestration.assets.new_scenario import new_scenario_job
from orchestration.assets.partitions import INGEST, SCENARIOS, patterns
from orchestration.assets.registry_assets import registry_assets
from orchestration.assets.retraining import follow_params, ingest_asset, retrain
from orchestration.assets.schedules import retraining_schedule
from orchestration.assets.sensors import arrival_sensor
from orchestration.assets.serving_assets import serving_assets
from orchestration.assets.staleness_sensor import staleness_sensor
from orchestration.assets.verification import verification
from orchestration.pipeline.cluster import MACHINE
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.pipes import DRIFT

ROOT = Path(__file__).resolve().parents[1]


def definitions(root: Path) -> dg.Definitions:
    """Return all definitions of the repository at `root`.

    Raises:
        ConfigError: params.yaml is wrong.
    """
    params = load_params(root / PARAMS)
    found = patterns(root, params)
    pipeline = dvc_assets(root, found)
    registry = registry_assets(root, SCENARIOS)
    serving = serving_assets(root, SCENARIOS)
    inspected = inspected_asset(root)
    tables = benchmark_assets(root)
    verify, nightly_verify = verification(root)
    scenario = dg.define_asset_job(
        "run_scenario",
        selection=dg.AssetSelection.all() - dg.AssetSelection.assets(INGEST, DRIFT, inspected, *serving, *tables),
        description="A scenario, from raw data to the champion; what did not change is not computed again. "
        "`Materialize all…`, and choose the scenario as the partition. Its settings, such as the policy, are in "
        "params.yaml",
    )
    several = False
    # without DAGSTER_HOME, the sensor adds the partitions later, in the instance that it is given
    if os.environ.get("DAGSTER_HOME"):
        with dg.DagsterInstance.get() as instance:
            several = has_several_machines(instance)
            if MACHINE not in os.environ:  # the clone of a worker may be older than the scenarios at home
                follow_params(instance, root, params)
    of_lines = (take_in if several else retrain).name  # the job that images in an inbox start
    # images to inspect are on this machine: where runs go to workers, `watch` scores them, and `collect` brings records
    # git takes params.yaml to workers, so there people write scenarios and commit them
    jobs = cluster_jobs if several else [new_scenario_job(root, params), scenario, retrain, inspect_job, drift_job]
    sensors = cluster_sensors() if several else [inspection_sensor(root, params.arrival), staleness_sensor(root, found)]
    return dg.Definitions(
        assets=[
            ingest_asset(root),
            *change_specs(found),
            pipeline,
            drift_asset(root),
            *registry,
            *serving,
            inspected,
            *tables,
        ],
        asset_checks=[] if several else [changes_checks(root, found)],
        jobs=[*jobs, verify],
        sensors=[arrival_sensor(root, params.arrival, of_lines), *sensors],
        schedules=[retraining_schedule(root, params.arrival, of_lines), nightly_verify],
        executor=dg.in_process_executor,  # a run is one chain; its sub-models run side by side within their step
    )


defs = definitions(ROOT)
