"""The main job of a cluster: a backfill of `train` on two workers, of which one dies; the other one finishes it.

Redis is left out: the broker is a folder. The rest is real: the repository's own configuration and jobs, PostgreSQL,
Dagster's daemon with its queue, run monitoring and run retries, two machines that share no file, `make worker`'s
command, and the check that the sensor makes.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.assets import machines
from orchestration.assets.lost_runs import end_lost_runs
from orchestration.slices import refs
from tests.campaign.chain import processes_in
from tests.cluster.conftest import kill_session, machine
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import COLD, add_records, command, environment, wait_for

SECONDS = 240
SCENARIOS = ("line", "noisy20")
EARLY = 4  # stages that the worker has published when it dies; many are left
STAGES = ("raw", "noisy", "features", "scores", "purified", "detector", "evaluation")
MUTATION = """
mutation ($given: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $given) { __typename ... on PythonError { message } }
}
"""


@pytest.fixture
def variables(tmp_path, database) -> dict[str, str]:
    """Return the environment of every machine, with a folder like cluster/celery that has a broker of files."""
    folder = tmp_path / "celery"
    shutil.copytree(REPOSITORY / "cluster" / "celery", folder, ignore=shutil.ignore_patterns("__pycache__"))
    files = {name: str(tmp_path / "broker") for name in ("data_folder_in", "data_folder_out")}
    files["control_folder"] = str(tmp_path / "control")
    for path in ("broker", "control", "results"):
        (tmp_path / path).mkdir()
    dagster = yaml.safe_load((folder / "dagster.yaml").read_text())
    dagster["run_launcher"]["config"]["config_source"] = {"broker_transport_options": files}
    dagster["run_monitoring"]["poll_interval_seconds"] = 1
    (folder / "dagster.yaml").write_text(yaml.safe_dump(dagster))
    with (folder / "dagster_celery_config.py").open("a") as config:
        config.write(f"broker_transport_options = {files}\n")
        # a busy worker takes no second run, which Celery's own setting for that sees to with Redis only
        config.write("task_acks_late = True\n")
    add_records(tmp_path)
    return {
        "LLBNAD_DAGSTER_DB": database,
        "LLBNAD_BROKER": "filesystem://",
        "LLBNAD_RESULTS": (tmp_path / "results").as_uri(),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow/mlflow.db",
        "DAGSTER_HOME": str(folder),
    }


@pytest.fixture
def start(variables, tmp_path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start programs in a clone that end with the test; what they print is in files beside it."""
    started = []

    def begin(name: str, clone: Path, *arguments: str, **extra: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [COLD, "-m", *arguments], cwd=clone, stdout=log, stderr=log, start_new_session=True,
                    env=environment(clone, PYTHONPATH=variables["DAGSTER_HOME"], **variables, **extra),
                )
            )  # fmt: skip
        return started[-1]

    yield begin
    for process in started:
        kill_session(process)


def stop_sensor(home: Path, variables: dict[str, str]) -> None:
    """Stop the sensor that would ask for lost runs beside the test, at a moment of its own."""
    sensor = ["sensor", "stop", "arrivals", "--workspace", f"{variables['DAGSTER_HOME']}/workspace.yaml"]
    stopped = command(home, [str(Path(COLD).with_name("dagster")), *sensor], **variables)
    assert "Stopped sensor arrivals" in stopped.stdout, stopped.stdout + stopped.stderr


def launch(home: Path, variables: dict[str, str]) -> None:
    """Launch a backfill as the UI does; the tag chooses the workers, such as those with a GPU."""
    location = {"repositoryName": "__repository__", "repositoryLocationName": "llbnad"}
    given = {
        "selector": {"partitionSetName": "train_partition_set", "repositorySelector": location},
        "partitionNames": list(SCENARIOS),
        "tags": [{"key": "dagster-celery/queue", "value": "gpu"}],
    }
    workspace, words = f"{variables['DAGSTER_HOME']}/workspace.yaml", json.dumps({"given": given})
    ask = [str(Path(COLD).with_name("dagster-graphql")), "--workspace", workspace, "--text", MUTATION]
    done = command(home, [*ask, "--variables", words], **variables)
    assert "LaunchBackfillSuccess" in done.stdout, done.stdout + done.stderr


def test_a_backfill_outlives_a_worker(remotes, by_dvc, variables, start, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "APART_SECONDS", 0.5)
    monkeypatch.setattr(machines, "ANSWER_SECONDS", 4.0)  # a worker beside other tests is slow
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    home, cluster = remotes / "home", variables["DAGSTER_HOME"]
    clones = {name: machine(remotes, name) for name in ("m1", "m2")}
    stop_sensor(home, variables)
    launch(home, variables)
    workers = {
        name: start(name, clone, "orchestration", "worker", "--cluster", cluster, "--queue", "gpu",
                    LLBNAD_MACHINE=str(folder))
        for name, (clone, folder) in clones.items()
    }  # fmt: skip
    start("daemon", home, "dagster._daemon", "run", "--workspace", f"{cluster}/workspace.yaml")

    def published() -> dict[str, refs.SliceRecord]:
        """Return what the machines have published, by machine."""
        refs.fetch(home)
        return {record.by.partition("@")[0]: record for record in refs.records(home)}

    def both_have_begun() -> bool:
        found = published()
        return {*found} == {"m1", "m2"} and len(found["m1"].entries) >= EARLY

    assert wait_for(both_have_begun, SECONDS), logs(tmp_path)
    assert not (home / ".git" / "worktrees").exists()  # each machine works in its own clone
    assert all((clone / ".git" / "worktrees").exists() for clone, _ in clones.values())
    kill_session(workers["m1"])
    assert wait_for(lambda: not killed(*clones["m1"]))
    before = published()
    lost_scenario, saved = before["m1"].scenario, {entry.partition("@")[0] for entry in before["m1"].entries}
    assert "evaluation" not in saved
    with dg.DagsterInstance.from_config(cluster) as instance:

        def runs() -> dict[str, dg.DagsterRun]:
            return {run.run_id: run for run in instance.get_runs(dg.RunsFilter(job_name="train"))}

        def status(run: str) -> dg.DagsterRunStatus:
            return runs()[run].status

        first = {run.tags["dagster/partition"]: number for number, run in runs().items()}
        assert {*first} == {*SCENARIOS}
        lost = first.pop(lost_scenario)
        assert end_lost_runs(instance) == []  # once is not enough; nobody else asks, since the sensor is stopped
        assert status(lost) == dg.DagsterRunStatus.STARTED
        time.sleep(1)
        assert end_lost_runs(instance) == [lost]
        assert status(lost) == dg.DagsterRunStatus.FAILURE
        # while another run of it is at work, the backfill is not over, and so Dagster tries the lost one again
        assert wait_for(lambda: len(runs()) == 3, SECONDS), logs(tmp_path)
        (again,) = runs().keys() - {lost, *first.values()}
        assert wait_for(lambda: all(run.is_finished for run in runs().values()), SECONDS), logs(tmp_path)
        assert status(again) == dg.DagsterRunStatus.SUCCESS, logs(tmp_path)
        assert runs()[again].root_run_id == lost
        assert runs()[again].tags["dagster/partition"] == lost_scenario
        assert [status(run) for run in first.values()] == [dg.DagsterRunStatus.SUCCESS]
        assert end_lost_runs(instance) == []

        def outcome(asset: str) -> object:
            """Return what became of an asset of the lost scenario in the run that was started again."""
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[lost_scenario])
            (record,) = instance.fetch_materializations(wanted, limit=1).records
            assert record.run_id == again
            return record.asset_materialization.metadata["outcome"].value

        outcomes = {stage: outcome(stage) for stage in STAGES}
    assert outcomes == {stage: "unchanged" if stage in saved else "ran" for stage in STAGES}
    collected = command(home, ["python", "-m", "orchestration", "slices", "collect"])
    assert collected.returncode == 0, collected.stderr
    assert (home / "dvc.lock").read_bytes() == (by_dvc / "dvc.lock").read_bytes()


def killed(clone: Path, folder: Path) -> list[int]:
    """Kill what the machine's worker had started; return what lived."""
    found = [*processes_in(folder), *processes_in(clone)]
    for number in found:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    return found


def logs(folder: Path) -> str:
    return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in sorted(folder.glob("*.log")))
