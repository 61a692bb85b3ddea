"""The runs in MLflow: that of a scenario, found again by every stage, and that of a benchmark table."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestration.pipeline.params import Params
from orchestration.tracking.database import prepare_database
from orchestration.tracking.experiment import EXPERIMENT, experiment_id
from orchestration.tracking.provenance import source_tags
from orchestration.tracking.scenario_run import ScenarioRun
from orchestration.tracking.server import MLFLOW_FOLDER, is_http, prepare_environment, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOCK_SECONDS = 60  # other stages hold the lock for seconds
TABLE_NUMBERS = ("image_auroc", "gain", "closed", "recall", "recall_ratio", "fpr", "blind")


@contextmanager
def scenario_run(scenario: str, params: Params) -> Iterator[ScenarioRun]:
    """Yield the scenario's run, found or created, under a lock that all stages of this workspace share.

    At the end, its name and description are made to say what it holds.
    """
    prepare_environment()
    prepare_database()
    from filelock import FileLock
    from mlflow import MlflowClient

    uri = tracking_uri()
    client = MlflowClient(uri)
    if is_http(uri):
        client.get_experiment_by_name(EXPERIMENT)  # before the lock, so that stages notice together if a server is down
    MLFLOW_FOLDER.mkdir(exist_ok=True)
    with FileLock(MLFLOW_FOLDER / ".lock", timeout=LOCK_SECONDS):
        run = ScenarioRun(client, experiment_id(client, uri), scenario, params)
        yield run
        run.describe()
        run.link()


@contextmanager
def reopened(client: "MlflowClient", run: "Run") -> Iterator[None]:
    """Let MLflow add to a run that has ended, as its active run. The run keeps the end and the status that it had."""
    import mlflow

    try:
        with mlflow.start_run(run_id=run.info.run_id):
            yield
    finally:
        client.set_terminated(run.info.run_id, run.info.status, run.info.end_time)


def record_table(name: str, settings: Mapping[str, Any], table: pd.DataFrame, files: Sequence[Path]) -> None:
    """Log a benchmark table as a run of its own: settings, what it measured, files.

    The rows are told apart by detector, and by those of n, policy and alpha that the table has.
    """
    prepare_environment()
    prepare_database()
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    uri = tracking_uri()
    client = MlflowClient(uri)
    MLFLOW_FOLDER.mkdir(exist_ok=True)
    run = client.create_run(experiment_id(client, uri), run_name=f"table {name}")
    now = int(time.time() * 1000)
    metrics = [
        Metric("/".join([column, row["detector"], *_place(row)]), float(row[column]), now, 0)
        for row in table.to_dict("records")
        for column in TABLE_NUMBERS
        if not pd.isna(row.get(column))
    ]
    source = source_tags("python -m orchestration benchmark")
    tags = [RunTag("grid", json.dumps(settings, sort_keys=True)[:5000]), *(RunTag(*tag) for tag in source.items())]
    client.log_batch(run.info.run_id, metrics=metrics, tags=tags)
    for path in files:
        client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)


def _place(row: Mapping[Any, Any]) -> list[str]:
    """Return the parts of a metric's name that tell the rows of a benchmark table apart."""
    size = [f"n_{row['n']}"] if "n" in row else []
    policy = [row["policy"]] if "policy" in row else []
    return [*size, *policy, *([f"alpha_{row['alpha']:g}"] if "alpha" in row else [])]
