"""S3 and PostgreSQL under all that uses them: DVC's remote, the feature cache, MLflow's records and artifacts."""

import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from llbnad.config import EncoderConfig
from llbnad.features.store import FeatureStore
from tests.cluster.conftest import free_port, kill_session
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import wait_for

DVC = REPOSITORY / ".venv-dvc" / "bin" / "dvc"


def keys(bucket: str) -> list[str]:
    return [entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])]


def dvc(folder: Path, *arguments: str) -> None:
    done = subprocess.run([str(DVC), *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dvc_pushes_to_s3_and_another_machine_pulls(s3, tmp_path):
    if not list(DVC.parents[1].glob("lib/*/site-packages/dvc_s3")):
        pytest.skip("dvc-s3 is not in .venv-dvc: `make setup-cluster` installs it")
    home, worker = tmp_path / "home", tmp_path / "worker"
    home.mkdir()
    dvc(home, "init", "--quiet", "--no-scm")
    dvc(home, "remote", "add", "--quiet", "--default", "store", f"s3://{s3}/llbnad")
    (home / "images").mkdir()
    (home / "images" / "0.png").write_bytes(b"an image")
    dvc(home, "add", "--quiet", "images")
    dvc(home, "push", "--quiet")
    assert len(keys(s3)) == 2  # the image, and the list of the folder
    shutil.copytree(home, worker, ignore=shutil.ignore_patterns("images", "cache", "tmp"))
    dvc(worker, "pull", "--quiet")
    assert (worker / "images" / "0.png").read_bytes() == b"an image"


def test_two_machines_share_features_in_a_bucket(s3, tmp_path, few_cells, monkeypatch):
    manifest, root = few_cells

    def machine(name: str) -> FeatureStore:
        config = EncoderConfig(input_size=64)
        return FeatureStore(tmp_path / name, config, manifest, root, shared=f"s3://{s3}/features")

    first, second = machine("first"), machine("second")
    assert first.ensure(first.image_ids) == len(first.image_ids) == len(keys(s3))
    monkeypatch.setattr("llbnad.features.store.create_encoder", lambda *_: pytest.fail("encoded once more"))
    assert second.ensure(second.image_ids) == 0


def test_a_bucket_that_is_not_there_costs_a_warning(s3, tmp_path, few_cells, caplog):
    manifest, root = few_cells
    store = FeatureStore(tmp_path, EncoderConfig(input_size=64), manifest, root, shared="s3://elsewhere/features")
    assert store.ensure(store.image_ids) == len(store.image_ids)
    assert caplog.text.count("features are encoded here") == 1


def test_mlflow_keeps_records_in_postgresql_and_artifacts_in_s3(s3, database, tmp_path, monkeypatch):
    address = f"http://127.0.0.1:{(port := free_port())}"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
             "--backend-store-uri", database, "--artifacts-destination", f"s3://{s3}/mlflow"],
            cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # the only thing that a worker knows
    from mlflow import MlflowClient

    def answers() -> bool:
        try:
            return bool(client.search_experiments())
        except Exception:  # it is starting
            return False

    try:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client = MlflowClient(address)
        assert wait_for(answers, 90), (tmp_path / "log").read_text()[-3000:]
        run = client.create_run(client.create_experiment("llbnad"))
        client.log_metric(run.info.run_id, "image_auroc", 0.9)
        (tmp_path / "report.json").write_text("{}")
        client.log_artifact(run.info.run_id, str(tmp_path / "report.json"))
        assert client.get_run(run.info.run_id).data.metrics == {"image_auroc": 0.9}
        assert [key for key in keys(s3) if key.startswith("mlflow/") and key.endswith("report.json")]
    finally:
        kill_session(server)
