"""MLflow: one run per scenario, one nested run per sub-model; a server that is down stops nothing."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from llbnad.utils.files import file_digest
from orchestration.assets.asset_metadata import metadata
from orchestration.pipeline import dvc
from orchestration.pipeline.settings import read_settings
from orchestration.tracking.best_effort import record_scenario
from orchestration.tracking.metric_names import in_mlflow
from orchestration.tracking.scenario_run import compared_with_earlier, link_path
from orchestration.tracking.server import page
from tests.pipeline.conftest import command, environment, stage
from tests.pipeline.test_workplace import materialised, outcomes


def client_of(folder):
    return MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")


def runs_of(client):
    experiment = client.get_experiment_by_name("llbnad")
    return client.search_runs([experiment.experiment_id])


def of_scenario(folder):
    """Return the metrics of a scenario's run and of its nested runs, by name of the run."""
    return {run.info.run_name: run.data.metrics for run in runs_of(client_of(folder)) if "noisy20" in run.info.run_name}


def test_a_scenario_is_a_run_and_its_sub_models_are_nested(by_dagster):
    client = client_of(by_dagster)
    runs = runs_of(client)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    key = parent.data.tags["llbnad.key"][:8]
    assert parent.info.run_name == f"noisy20 mad v1 of cells {key}"  # its detector was registered
    names = [f"sub_model_{number} of noisy20 mad of cells {key}" for number in (0, 1)]
    assert sorted(run.info.run_name for run in nested) == names
    assert len(runs) == 3
    metrics = json.loads((by_dagster / "data/evaluation/noisy20/metrics.json").read_text())
    numbers = {name: value for name, value in metrics.items() if value is not None and name != "notes"}
    logged = in_mlflow("evaluation", numbers)
    assert logged == pytest.approx({name: parent.data.metrics[name] for name in logged})
    assert "pixel_auroc" not in parent.data.metrics
    assert {"image_auroc_none", "image_auroc_oracle", "image_auroc_random"} <= set(parent.data.metrics)
    assert parent.data.params["noise.ratio"] == "0.2" and parent.data.params["detector.name"] == "patchcore"
    assert parent.data.tags["git.commit"].startswith(head(by_dagster))


def test_the_experiment_and_its_runs_say_what_they_are(by_dagster, monkeypatch):
    monkeypatch.chdir(by_dagster)  # where no `ui` has left its address
    client = client_of(by_dagster)
    assert client.get_experiment_by_name("llbnad").tags["mlflow.experimentKind"] == "custom_model_development"
    (parent,) = [run for run in runs_of(client) if "mlflow.parentRunId" not in run.data.tags]
    tags = parent.data.tags
    assert tags["mlflow.source.name"] == "dvc repro evaluation@noisy20"
    assert tags["mlflow.source.git.commit"] == head(by_dagster)
    note = tags["mlflow.note.content"]
    kept, train = (int(parent.data.metrics[name]) for name in ("n_selected", "n_train"))
    assert f"Kept {kept} of {train} training images" in note
    assert f"| what mad kept (*llbnad*) | {kept} |" in note and f"| everything (*none*) | {train} |" in note
    assert f"{parent.data.metrics['image_auroc_oracle']:.3f} |" in note
    assert f"`git checkout {head(by_dagster)[:10]}`, then `dvc repro evaluation@noisy20`." in note
    assert "Edited after" not in note
    shown = re.findall(r"path=([^&]*)&run_uuid=(\w+)", note)
    assert shown and {run_id for _, run_id in shown} == {parent.info.run_id}
    for path, _ in shown:  # each is an artifact of this run
        assert Path(client.download_artifacts(parent.info.run_id, unquote(path))).suffix in (".png", ".csv")
    inputs = {one.dataset.name: one for one in parent.inputs.dataset_inputs}
    manifest = by_dagster / "data/noisy/noisy20/manifest.parquet"
    assert inputs.keys() == {"cells", "noisy20"}
    assert inputs["noisy20"].dataset.digest == file_digest(manifest, "md5")
    assert json.loads(inputs["noisy20"].dataset.source) == {"uri": "data/noisy/noisy20/manifest.parquet"}
    assert json.loads(inputs["noisy20"].dataset.profile)["train"] == train
    link = json.loads((by_dagster / "mlflow/runs/noisy20.json").read_text())
    place = ("experiments", parent.info.experiment_id, "runs", parent.info.run_id)
    assert link["url"] == page("sqlite:///", *place)


def test_another_policy_is_compared_with_what_stood_before_on_the_same_images(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)
    client = client_of(copy_of)
    params = copy_of / "params.yaml"
    changed = yaml.safe_load(params.read_text())
    changed["scenarios"]["noisy20"]["selection"] = {"policy": "fraction", "keep": 0.4}
    params.write_text(yaml.safe_dump(changed, sort_keys=False))
    done = command(copy_of, ["dvc", "repro", "evaluation@noisy20"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    parents = {run.data.params["selection.policy"]: run for run in runs_of(client)
               if run.data.params["scenario"] == "noisy20" and "mlflow.parentRunId" not in run.data.tags}  # fmt: skip
    before, now = parents["mad"], parents["fraction"]
    note = now.data.tags["mlflow.note.content"]
    line = next(part for part in note.splitlines() if part.startswith("* [noisy20 mad"))
    aurocs = [run.data.metrics["image_auroc"] for run in (before, now)]
    assert "I-AUROC {:.4f} → {:.4f} on the same".format(*aurocs) in line and "policy `mad`, of 20" in line
    rates = [[run.data.metrics[f"{name}_at_threshold"] for run in (before, now)] for name in ("fpr", "recall")]
    said = "without a test for chance: false positives {:.1%} → {:.1%}, recall {:.1%} → {:.1%}"
    assert said.format(*rates[0], *rates[1]) in line  # as the same page says below
    kept = [{*pd.read_parquet(client.download_artifacts(run.info.run_id, "purified/kept.parquet"))["image_id"]}
            for run in (before, now)]  # fmt: skip
    alone = f"{len(kept[1] - kept[0])} images are kept by this run alone, {len(kept[0] - kept[1])} by the other alone"
    assert alone in line and kept[0] != kept[1]
    assert "`: params.yaml; its settings are among the run's parameters" in note  # it was not committed
    assert f"/runs/{before.info.run_id}" in line and re.search(r"(chance|better|worse)", line)
    path = re.search(r"path=([^&]*beside_earlier.png)&run_uuid=" + now.info.run_id, note)
    assert Path(client.download_artifacts(now.info.run_id, unquote(path[1]))).stat().st_size > 5000
    assert "Beside other runs" not in before.data.tags["mlflow.note.content"]  # the first has none before it
    text = json.loads(now.data.tags["llbnad.beside"])
    again = command(copy_of, ["python", "-m", "orchestration", "record", "noisy20"])
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(client.get_run(now.info.run_id).data.tags["llbnad.beside"]) == text
    # the line of `make run`, as long as the record is that of what is on disk
    monkeypatch.chdir(copy_of)
    assert compared_with_earlier("noisy20", read_settings("noisy20")).startswith(
        f"beside policy mad, of {text['compared'][0]['of']}: {text['compared'][0]['text']}"
    )
    link = link_path("noisy20")
    known = link.read_text()
    outputs = dvc.outputs(dvc.read_lock(copy_of), "evaluation@noisy20")
    assert metadata(outputs, copy_of, "noisy20")["beside earlier results"] == json.loads(known)["beside"]
    link.write_text(json.dumps({**json.loads(known), "evaluation": "another"}))
    assert compared_with_earlier("noisy20", read_settings("noisy20")) == ""
    link.write_text(known)

    # a third one stands beside what was there before, and beside the newest of each other policy
    changed["scenarios"]["noisy20"]["selection"]["keep"] = 0.6
    params.write_text(yaml.safe_dump(changed, sort_keys=False))
    done = command(copy_of, ["dvc", "repro", "evaluation@noisy20"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = [run for run in runs_of(client) if run.data.params.get("selection.keep") == "0.6"]
    (third,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    compared = json.loads(third.data.tags["llbnad.beside"])["compared"]
    assert [one["run"] for one in compared] == [now.info.run_id, before.info.run_id]
    lines = [line for line in third.data.tags["mlflow.note.content"].splitlines() if line.startswith("* [noisy20")]
    assert [re.search(r"/runs/(\w+)", line)[1] for line in lines] == [now.info.run_id, before.info.run_id]

    # results that come back from the cache were there, too: the next run stands beside them, though others are newer
    said = list[str]()
    for policy in ({"policy": "mad", "k": 2.5}, {"policy": "fraction", "keep": 0.5}):
        changed["scenarios"]["noisy20"]["selection"] = policy
        params.write_text(yaml.safe_dump(changed, sort_keys=False))
        done = command(copy_of, ["python", "-m", "orchestration", "run"], COLUMNS="300")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        said.append(done.stdout)
    words = f"beside policy mad, of {text['compared'][0]['of']}: I-AUROC"
    assert "came from the cache" in said[0] and "noisy20, beside policy fraction, of 20" in said[0]
    assert words in said[1]
    done = command(copy_of, ["python", "-m", "orchestration", "status", "noisy20"], COLUMNS="300")
    assert f"noisy20: {words}" in done.stdout


def test_no_number_has_two_names(by_dagster):
    repeated = {"threshold_value", "pixel_threshold_value", "image_auroc_llbnad", "n_labelled",
                "n_selected_llbnad", "n_selected_none", "n_selected_random"}  # fmt: skip
    of_training = {"contamination_before", "contamination_after", "contamination_rejected", "score_median",
                   "rank_correlation_min"}  # fmt: skip
    names = {name for run in runs_of(client_of(by_dagster)) for name in run.data.metrics}
    assert not names & (repeated | of_training)
    measured = of_training - {"contamination_rejected"}  # nothing was rejected
    assert {f"train_{name}" for name in measured} | {"threshold", "pixel_threshold"} <= names


def test_a_description_that_a_person_changed_is_left_alone(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = client_of(copy_of)
    (parent,) = [run for run in runs_of(client) if run.data.params["scenario"] == "line"
                 and "mlflow.parentRunId" not in run.data.tags]  # fmt: skip
    assert "labels" in parent.data.tags["mlflow.note.content"]  # unsorted images: counts alone
    client.set_tag(parent.info.run_id, "mlflow.note.content", "the lamp was new")
    assert record_scenario("line")
    assert client.get_run(parent.info.run_id).data.tags["mlflow.note.content"] == "the lamp was new"


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
    before = {run.info.run_id: (run.data.metrics, run.info.end_time) for run in runs_of(client)}
    done = command(copy_of, ["python", "-m", "orchestration", "record", "noisy20"])
    assert done.returncode == 0, done.stderr
    after = {run.info.run_id: (run.data.metrics, run.info.end_time) for run in runs_of(client_of(copy_of))}
    assert after == before


@pytest.mark.parametrize("door", ["run", "run --slices", "dagster"])
def test_what_dvc_restores_from_its_cache_is_recorded(copy_of, door, monkeypatch):
    """As in a fresh clone that shares a cache: no stage of the scenario runs, and its run is complete all the same."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # mlflow leaves it behind in this process
    # elsewhere, since MLflow would go on reading a database that it has opened
    (copy_of / "before").mkdir()
    (copy_of / "mlflow").rename(copy_of / "before/mlflow")
    before = of_scenario(copy_of / "before")
    shutil.rmtree(copy_of / "data/evaluation/noisy20")
    if door == "dagster":
        result, events = materialised(copy_of, "noisy20", ["evaluation"])
        assert result.success and outcomes(events)["evaluation"] == "restored from cache"
    else:
        done = command(copy_of, ["python", "-m", "orchestration", *door.split()])
        assert done.returncode == 0, done.stderr[-3000:]
        assert "1 stage came from the cache, in " in done.stdout or "--slices" in door
        assert re.search("recorded in MLflow, from the cache or not sent before: .*noisy20", done.stdout)
        again = command(copy_of, ["python", "-m", "orchestration", *door.split()])
        assert "recorded in MLflow" not in again.stdout and again.returncode == 0
    for metrics in before.values():  # counts of the process that encoded
        metrics.pop("images_encoded", None)
        metrics.pop("images_cached", None)
    assert of_scenario(copy_of) == before


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
