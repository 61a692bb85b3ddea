"""A project that was moved or copied: MLflow's records follow by themselves, and the original stays as it is."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts

from orchestration.pipeline.settings import read_settings
from orchestration.registry.store import model_file
from orchestration.tracking.database import prepare_database
from orchestration.tracking.mlflow_runs import scenario_run
from orchestration.tracking.moved import ADDRESSES, follow_move
from tests.pipeline.test_tracking import client_of, runs_of

SCENARIO = "noisy20"
MODEL = f"data/detector/{SCENARIO}/llbnad.safetensors"


def addresses(folder: Path) -> list[str]:
    """All addresses of artifacts in a project's database."""
    with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as database:
        rows = [database.execute(f"select {column} from {table}").fetchall() for table, column in ADDRESSES]
    return [address for found in rows for (address,) in found if address]


@pytest.fixture
def moved(by_dagster, tmp_path, monkeypatch):
    """A finished project with a champion, copied as a person would, into a folder whose name needs quoting."""
    folder = tmp_path / "a copy"
    shutil.copytree(by_dagster, folder, symlinks=True, ignore=shutil.ignore_patterns("cache", ".git"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def alone(by_dagster, tmp_path, monkeypatch):
    """The database of a finished project in another folder, without its artifacts."""
    folder = tmp_path / "moved"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(by_dagster / "mlflow" / "mlflow.db", folder / "mlflow")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def test_a_copy_keeps_working_and_the_original_is_not_touched(moved, by_dagster, capsys):
    before = addresses(by_dagster)
    prepare_database()
    said = capsys.readouterr().err
    assert said.startswith(f"mended: {moved}/mlflow/mlflow.db was made in {by_dagster};") and "WARNING" not in said
    prepare_database()
    assert capsys.readouterr().err == ""  # once
    assert addresses(by_dagster) == before
    assert not any(str(by_dagster) in address for address in addresses(moved))

    # no address names the original any more, so what is read is here
    client = client_of(moved)
    (parent,) = [run for run in runs_of(client) if "mlflow.parentRunId" not in run.data.tags]
    suspects = Path(client.download_artifacts(parent.info.run_id, "purified/plots/suspects.png"))
    assert suspects.is_file()
    # the champion, as the pipeline takes it and as MLflow's own server does
    model = model_file(f"models:/llbnad-{SCENARIO}@champion")
    assert model.read_bytes() == (by_dagster / MODEL).read_bytes()
    assert (Path(download_artifacts(f"models:/llbnad-{SCENARIO}@champion")) / "MLmodel").is_file()
    # a new run
    settings = read_settings(SCENARIO)
    other = settings.model_copy(
        update={"scenarios": {SCENARIO: settings.scenario(SCENARIO).model_copy(update={"seed": 7})}}
    )
    with scenario_run(SCENARIO, other) as run:
        run.add("scores", None, {}, [moved / "data/scores" / SCENARIO / "rank_correlation.csv"])
    assert run.parent.info.run_id != parent.info.run_id
    (written,) = (moved / "mlflow/artifacts" / run.parent.info.run_id).rglob("rank_correlation.csv")
    assert written.parent.name == "scores"
    assert not (by_dagster / "mlflow" / "artifacts" / run.parent.info.run_id).exists()


def test_artifacts_that_were_left_behind_are_named(alone, by_dagster, capsys):
    follow_move(alone / "mlflow" / "mlflow.db", patience=60)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("WARNING: the artifacts of ") and said.endswith(
        f" are in {by_dagster}/mlflow/artifacts alone: copy them to {alone}/mlflow/artifacts"
    )


@pytest.mark.parametrize("location", ["s3://bucket/llbnad", "mlflow-artifacts:/1", "file:///elsewhere/store"])
def test_addresses_of_other_places_are_left_alone(alone, location):
    with closing(sqlite3.connect(alone / "mlflow" / "mlflow.db")) as database, database:
        database.execute("update experiments set artifact_location = ? where name = 'llbnad'", (location,))
    before = addresses(alone)
    prepare_database()
    assert addresses(alone) == before


def test_the_same_folder_by_another_name_is_no_move(alone, tmp_path):
    prepare_database()
    before = addresses(alone)
    (tmp_path / "link").symlink_to(alone)
    prepare_database(tmp_path / "link")
    assert addresses(alone) == before


def test_a_name_for_the_own_database_is_no_other_server(alone, by_dagster, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{alone}/mlflow/mlflow.db")  # as docs say for serving
    prepare_database()
    assert not any(str(by_dagster) in address for address in addresses(alone))
