"""Celery's launcher with the repository's own configuration, on a broker of files: a worker dies, another one finishes.

Redis is left out, the rest is real: PostgreSQL, Dagster's queue, run monitoring and run retries, two workers, `make
worker`'s command, and the check that the sensor makes.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.assets import machines
from orchestration.assets.lost_runs import end_lost_runs
from tests.cluster.conftest import kill_session
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import wait_for

SECONDS = 120
SCENARIOS = ("bottle", "screw")
JOB = f"""
import os, time
from pathlib import Path
import dagster as dg

PLACE = Path(os.environ["TINY_PLACE"])

@dg.op
def work(context):
    new = PLACE / f"{{context.run_id}}.new"
    new.write_text(os.environ["TINY_WORKER"])
    new.rename(new.with_suffix(".begun"))
    while not (PLACE / "go on").exists():
        time.sleep(0.1)

@dg.job(partitions_def=dg.StaticPartitionsDefinition({list(SCENARIOS)}))
def tiny():
    work()

defs = dg.Definitions(jobs=[tiny], executor=dg.in_process_executor)
"""
MUTATION = """
mutation ($given: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $given) { __typename ... on PythonError { message } }
}
"""


@pytest.fixture
def cluster(tmp_path, database, monkeypatch) -> Path:
    """Return a cluster folder like cluster/celery, but with a broker of files and a job that waits."""
    folder = tmp_path / "cluster"
    shutil.copytree(REPOSITORY / "cluster" / "celery", folder, ignore=shutil.ignore_patterns("__pycache__"))
    files = {name: str(tmp_path / "broker") for name in ("data_folder_in", "data_folder_out")}
    files["control_folder"] = str(tmp_path / "control")
    for path in ("broker", "control", "results", "place"):
        (tmp_path / path).mkdir()
    dagster = yaml.safe_load((folder / "dagster.yaml").read_text())
    dagster["run_launcher"]["config"]["config_source"] = {"broker_transport_options": files}
    dagster["run_monitoring"]["poll_interval_seconds"] = 1
    (folder / "dagster.yaml").write_text(yaml.safe_dump(dagster))
    with (folder / "dagster_celery_config.py").open("a") as config:
        config.write(f"broker_transport_options = {files}\n")
        # a busy worker takes no second run, which Celery's own setting for that sees to with Redis only
        config.write("task_acks_late = True\n")
    (folder / "workspace.yaml").write_text("load_from:\n  - python_module: {module_name: tiny, location_name: tiny}\n")
    (folder / "tiny.py").write_text(JOB)
    for name, value in {
        "LLBNAD_DAGSTER_DB": database,
        "LLBNAD_BROKER": "filesystem://",
        "LLBNAD_RESULTS": (tmp_path / "results").as_uri(),
        "TINY_PLACE": str(tmp_path / "place"),
        "TINY_WORKER": "none",
        "LLBNAD_MACHINE": str(tmp_path / "machine"),
        "DAGSTER_HOME": str(folder),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)]),
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def start(cluster) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start programs that end with the test; their output is in files beside the cluster folder."""
    started = []

    def begin(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (cluster.parent / f"{name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *arguments],
                    cwd=cluster, env={**os.environ, "TINY_WORKER": name}, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        kill_session(process)


def launch(workspace: str) -> None:
    """Launch a backfill as the UI does; the tag chooses the workers, such as those with a GPU."""
    location = {"repositoryName": "__repository__", "repositoryLocationName": "tiny"}
    given = {
        "selector": {"partitionSetName": "tiny_partition_set", "repositorySelector": location},
        "partitionNames": list(SCENARIOS),
        "tags": [{"key": "dagster-celery/queue", "value": "gpu"}],
    }
    program = Path(sys.executable).with_name("dagster-graphql")
    command = [str(program), "--workspace", workspace, "--text", MUTATION, "--variables", json.dumps({"given": given})]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "LaunchBackfillSuccess" in done.stdout, done.stdout + done.stderr


def test_a_backfill_outlives_a_worker(cluster, start, monkeypatch):
    monkeypatch.setattr(machines, "APART_SECONDS", 0.5)
    monkeypatch.setattr(machines, "ANSWER_SECONDS", 4.0)  # a worker beside other tests is slow
    place, workspace = cluster.parent / "place", str(cluster / "workspace.yaml")
    worker = ("orchestration", "worker", "--cluster", str(cluster), "--queue", "gpu")
    workers = {name: start(name, *worker) for name in ("one", "two")}
    launch(workspace)
    start("daemon", "dagster._daemon", "run", "--workspace", workspace)

    def begun() -> dict[str, Path]:
        """Return the runs that have begun, by id."""
        return {path.stem: path for path in place.glob("*.begun")}

    assert wait_for(lambda: len(begun()) == 2, SECONDS), logs(cluster)
    first = begun()
    with dg.DagsterInstance.from_config(str(cluster)) as instance:

        def status(run: str) -> dg.DagsterRunStatus:
            return instance.get_run_by_id(run).status

        for _ in range(2):
            assert end_lost_runs(instance) == []  # its worker is alive
            time.sleep(1)
        lost = next(run for run, path in first.items() if path.read_text() == "one")
        kill_session(workers["one"])
        assert end_lost_runs(instance) == []  # once is not enough
        assert status(lost) == dg.DagsterRunStatus.STARTED
        time.sleep(1)
        assert end_lost_runs(instance) == [lost]
        assert status(lost) == dg.DagsterRunStatus.FAILURE
        # while another run of it is at work, the backfill is not over, and so Dagster tries the lost one again
        assert wait_for(lambda: len(instance.get_run_ids()) == 3, SECONDS), logs(cluster)
        (place / "go on").touch()
        assert wait_for(lambda: len(begun()) == 3, SECONDS), logs(cluster)
        (again,) = begun().keys() - first.keys()
        assert wait_for(lambda: status(again) == dg.DagsterRunStatus.SUCCESS, SECONDS), logs(cluster)
        assert begun()[again].read_text() == "two"
        runs = {run: instance.get_run_by_id(run) for run in begun()}
        assert runs[again].root_run_id == lost
        partitions = {run: runs[run].tags["dagster/partition"] for run in runs}
        assert partitions[again] == partitions[lost] and set(partitions.values()) == set(SCENARIOS)
        assert [status(run) for run in first if run != lost] == [dg.DagsterRunStatus.SUCCESS]
        assert end_lost_runs(instance) == []


def logs(cluster: Path) -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(cluster.parent.glob("*.log")))
