"""MLflow: one run per scenario, one nested run per sub-model; a server that is down stops nothing."""

import json
import os
import socket
import subprocess
import time
import urllib.request

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestration.pipeline import dvc
from tests.pipeline.conftest import command, environment, stage


def client_of(folder):
    return MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")


def runs_of(client):
    experiment = client.get_experiment_by_name("llbnad")
    return client.search_runs([experiment.experiment_id])


def test_a_scenario_is_a_run_and_its_sub_models_are_nested(by_dagster):
    client = client_of(by_dagster)
    runs = runs_of(client)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in nested) == ["sub_model_0", "sub_model_1"]
    assert len(runs) == 3
    metrics = json.loads((by_dagster / "data/evaluation/noisy20/metrics.json").read_text())
    logged = {name: value for name, value in metrics.items() if value is not None and name != "notes"}
    assert logged == pytest.approx({name: parent.data.metrics[name] for name in logged})
    assert "pixel_auroc" not in parent.data.metrics
    assert {"image_auroc_none", "image_auroc_oracle", "image_auroc_random"} <= set(parent.data.metrics)
    assert parent.data.params["noise.ratio"] == "0.2" and parent.data.params["detector.name"] == "patchcore"
    assert parent.data.tags["git.commit"].startswith(head(by_dagster))


def test_outputs_are_pointed_at_by_hash(by_dagster):
    (parent,) = [run for run in runs_of(client_of(by_dagster)) if "mlflow.parentRunId" not in run.data.tags]
    lock = dvc.outputs(dvc.read_lock(by_dagster), "purified@noisy20")
    assert json.loads(parent.data.tags["dvc.purified"]) == lock
    digests = json.loads(parent.data.tags["md5.evaluation"])
    assert (
        digests["metrics.json"]
        == dvc.outputs(dvc.read_lock(by_dagster), "evaluation@noisy20")["data/evaluation/noisy20/metrics.json"]
    )


def test_pictures_models_and_tables_are_artifacts(by_dagster):
    client = client_of(by_dagster)
    (parent,) = [run for run in runs_of(client) if "mlflow.parentRunId" not in run.data.tags]

    def tree(path=None):
        for item in client.list_artifacts(parent.info.run_id, path):
            yield from tree(item.path) if item.is_dir else [item.path]

    found = set(tree())
    assert {"purified/plots/suspects.png", "purified/plots/scores.png", "evaluation/plots/curves.png",
            "evaluation/comparison.csv", "detector/llbnad.safetensors"} <= found  # fmt: skip


def test_every_metric_is_recorded_once(by_dagster):
    client = client_of(by_dagster)
    counts = {
        (run.info.run_name, name): len(client.get_metric_history(run.info.run_id, name))
        for run in runs_of(client)
        for name in run.data.metrics
    }
    assert len(counts) > 10 and set(counts.values()) == {1}


def test_recording_again_changes_nothing(copy_of):
    client = client_of(copy_of)
    before = {run.info.run_id: run.data.metrics for run in runs_of(client)}
    done = command(copy_of, ["python", "-m", "orchestration", "record", "noisy20"])
    assert done.returncode == 0, done.stderr
    assert {run.info.run_id: run.data.metrics for run in runs_of(client_of(copy_of))} == before


def test_server_that_is_down_stops_nothing_and_the_record_can_be_sent_later(copy_of):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    wanted = (copy_of / "data/purified/noisy20/summary.json").read_bytes()
    (copy_of / "data/purified/noisy20/summary.json").unlink()
    started = time.monotonic()
    done = stage(copy_of, "purified", "noisy20", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0
    assert (copy_of / "data/purified/noisy20/summary.json").read_bytes() == wanted
    assert uri in done.stderr and "python -m orchestration record noisy20" in done.stderr
    assert time.monotonic() - started < 60
    failed = command(copy_of, ["python", "-m", "orchestration", "record", "noisy20"], MLFLOW_TRACKING_URI=uri)
    assert failed.returncode == 1

    server = subprocess.Popen(
        ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{copy_of}/server.db", "--artifacts-destination", f"{copy_of}/server"],
        cwd=copy_of, env=environment(copy_of, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_healthy(uri)
        sent = command(copy_of, ["python", "-m", "orchestration", "record", "noisy20"], MLFLOW_TRACKING_URI=uri)
        assert sent.returncode == 0, sent.stderr
        assert uri in sent.stdout
        client = MlflowClient(uri)
        runs = runs_of(client)
        assert len(runs) == 3
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        assert parent.data.metrics["image_auroc"] > 0.5
        assert [item.path for item in client.list_artifacts(parent.info.run_id, "purified/plots")]
    finally:
        os.killpg(server.pid, 15)
        server.wait(20)


def test_unknown_scenario_is_refused(by_dvc):
    done = command(by_dvc, ["python", "-m", "orchestration", "record", "moon"])
    assert done.returncode == 2
    assert "unknown scenario 'moon'" in done.stderr


def wait_until_healthy(uri):
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise MlflowException(f"no server at {uri}")


def head(folder):
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
