"""A production line on two machines that share no file: taken in at home, trained by a worker, promoted at home.

Both machines are clones of one bare repository. Dagster's records are in PostgreSQL, bytes in a folder as DVC's remote.
The jobs are executed in the order in which the sensors ask for them (tests/cluster/test_jobs.py), without Celery.
"""

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.pipeline.conftest import NOISY, command, commit, git, make_workspace

LINE = "bottle"
EXECUTE = """
import sys
import dagster as dg
from orchestration.definitions import defs
job, partition = sys.argv[1:]
with dg.DagsterInstance.get() as instance:
    defs.resolve_job_def(job).execute_in_process(partition_key=partition, instance=instance)
"""


@pytest.fixture
def variables(tmp_path, database) -> dict[str, str]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    shutil.copy(REPOSITORY / "cluster" / "celery" / "dagster.yaml", folder)
    return {
        "DAGSTER_HOME": str(folder),
        "LLBNAD_DAGSTER_DB": database,
        "LLBNAD_BROKER": "memory://",
        "LLBNAD_RESULTS": "cache+memory://",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }


@pytest.fixture
def home(tmp_path, cells) -> Path:
    folder = make_workspace(tmp_path / "home", {"cells": cells}, {"noisy20": NOISY})
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["runtime"]["feature_cache"] = str(tmp_path / "features")
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    git(tmp_path, "init", "--quiet", "--bare", "main.git")
    git(folder, "remote", "add", "origin", str(tmp_path / "main.git"))
    added = command(folder, ["dvc", "remote", "add", "--default", "store", str(tmp_path / "store")])
    assert added.returncode == 0, added.stderr
    commit(folder, "DVC's remote")
    git(folder, "push", "--quiet", "origin", "HEAD")
    return folder


def execute(folder: Path, job: str, variables: dict[str, str], **extra: str) -> None:
    done = command(folder, ["python", "-c", EXECUTE, job, LINE], PYTHONPATH=str(folder), **variables, **extra)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def test_a_line_is_taken_in_at_home_trained_by_a_worker_and_promoted_at_home(
    home, variables, cells, tmp_path, monkeypatch
):
    git(tmp_path, "clone", "--quiet", str(tmp_path / "main.git"), "worker")  # before there was a line
    worker, inbox = tmp_path / "worker", home / "data" / "incoming" / LINE
    inbox.mkdir(parents=True)
    for number, path in enumerate([*sorted((cells / "good").iterdir())[:20], *sorted((cells / "bad").iterdir())[:4]]):
        shutil.copy(path, inbox / f"{number}.png")
    execute(home, "take_in", variables)
    assert not list(inbox.iterdir())
    execute(worker, "train", variables, LLBNAD_MACHINE=str(tmp_path / "machine"))
    execute(home, "promote", variables)

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert set(instance.get_dynamic_partitions("scenario")) == {"noisy20", LINE}  # the worker deletes none

        def told(asset: str) -> dict[str, object]:
            wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[LINE])
            (record,) = instance.fetch_materializations(wanted, limit=1).records
            return {key: value.value for key, value in record.asset_materialization.metadata.items()}

        assert told("ingest")["new images"] == 24
        assert told("evaluation")["outcome"] == "ran"
        assert told("drift").get("outcome") != "no production line"
        assert told("champion")["version"] == told("challenger")["version"] == "1"
    assert "refs/llbnad/bottle" in git(home, "ls-remote", "origin")
    assert list((tmp_path / "features").rglob("*.safetensors"))  # shared by the machines
    assert not (home / "data" / "detector").exists() and not (worker / "data" / "detector").exists()
