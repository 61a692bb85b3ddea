"""The embedded database of MLflow: killed while it is made, it is made anew; what holds a record is never touched."""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from mlflow import MlflowClient

from orchestration.tracking.database import prepare_database
from tests.pipeline.conftest import command, environment

MAKE = ["python", "-c", "from orchestration.tracking.database import prepare_database; prepare_database()"]
HALF_MADE = {
    "empty": "",
    "first tables": "create table experiments (experiment_id integer primary key); create table runs (run_uuid text);",
    "another table": "create table alembic_version (version_num text); insert into alembic_version values ('x');",
}


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    """mlflow.set_tracking_uri, which other tests call, leaves this variable behind in the process."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        prepare_database(folder)
    return folder


def first_experiment(folder):
    (found,) = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}").search_experiments()
    return found.name


def test_it_is_made_whole_and_alone(made):
    assert [path.name for path in (made / "mlflow").iterdir() if path.suffix == ".db"] == ["mlflow.db"]
    assert first_experiment(made) == "Default"


@pytest.mark.parametrize("content", HALF_MADE.values(), ids=HALF_MADE)
def test_a_half_made_one_is_made_anew(tmp_path, made, monkeypatch, capsys, content):
    (tmp_path / "mlflow").mkdir()
    path = tmp_path / "mlflow" / "mlflow.db"
    path.touch()
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(content)
    path.with_name("making.db").write_bytes(b"of another kill")
    monkeypatch.setattr(
        "orchestration.tracking.database._make", lambda apart: shutil.copy(made / "mlflow" / "mlflow.db", apart)
    )
    prepare_database(tmp_path)
    assert first_experiment(tmp_path) == "Default"
    assert f"mended: {path} was half-made" in capsys.readouterr().err


def test_a_kill_while_it_is_made_leaves_nothing_in_its_place(tmp_path, made):
    process = subprocess.Popen(MAKE, cwd=tmp_path, env=environment(tmp_path), start_new_session=True)
    apart, deadline = tmp_path / "mlflow" / "making.db", time.monotonic() + 120
    while not (apart.exists() and apart.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert apart.stat().st_size > 100_000 and not (tmp_path / "mlflow" / "mlflow.db").exists()
    with ThreadPoolExecutor(2) as pool:  # two first stages at once
        done = list(pool.map(lambda _: command(tmp_path, MAKE), range(2)))
    assert [one.returncode for one in done] == [0, 0], done
    assert first_experiment(tmp_path) == "Default" and not apart.exists()


@pytest.mark.parametrize("content", [b"not a database, and somebody's\n" * 100])
def test_what_is_no_database_is_left_alone(tmp_path, content):
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(content)
    prepare_database(tmp_path)
    assert (tmp_path / "mlflow" / "mlflow.db").read_bytes() == content


def test_what_holds_a_record_is_left_alone(tmp_path, made):
    shutil.copytree(made, tmp_path / "copy")
    path = tmp_path / "copy" / "mlflow" / "mlflow.db"
    before = path.stat().st_ino
    prepare_database(tmp_path / "copy")
    assert path.stat().st_ino == before
