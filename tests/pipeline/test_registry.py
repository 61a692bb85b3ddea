"""Champion and challenger on a real registry: registered once, judged, promoted, rolled back, refused with a reason."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import typer
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import Model
from safetensors.torch import load_file, safe_open, save_file

from llbnad.errors import ConfigError
from llbnad.model.content import content_digest
from llbnad.model.model import Model as Detector
from llbnad.model.threshold import threshold_at
from orchestration.assets.outside_registry import MADE_BY
from orchestration.commands.registry import app, list_versions, next_step, promote, rollback
from orchestration.commands.review import NEWLY_LEARNT
from orchestration.registry.comparison_files import IMAGES, SCORES, TABLE, comparison_files
from orchestration.registry.model_card import read_metrics
from orchestration.registry.register_version import CHECKS, challenge, report_path
from orchestration.registry.shown import next_after
from orchestration.registry.store import EXIT_REFUSED, RegistryError, champion_of, model_file, model_name
from orchestration.tracking.scenario_run import link_path
from tests.conftest import REPOSITORY, save_image
from tests.pipeline.conftest import command, environment, materialise
from tests.pipeline.test_both_doors import check_statuses, events, stored
from tests.pipeline.test_serving import wait_for

LINE = "noisy20"
# what a first detector cannot be held against; of `separation`, too few images were rejected
COMPARISONS = ("verdicts", "separation", "agreement", "sensitivity", "alarms", "shift")


@pytest.fixture
def workspace(copy_of, monkeypatch):
    """A finished workspace with the embedded registry, as the working directory."""
    monkeypatch.chdir(copy_of)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy_of


def detector(folder):
    return folder / "data/detector" / LINE / "llbnad.safetensors"


def champion(folder):
    found = champion_of(MlflowClient(f"sqlite:///{folder}/mlflow/mlflow.db"), LINE)
    return found and str(found.version)


def scale_memory(path, factor):
    """Write a detector that was trained badly, not one that was damaged: its digest is right."""
    with safe_open(path, "pt") as stored:
        content = json.loads(stored.metadata()["llbnad"])
    tensors = load_file(path)
    tensors["memory"] = tensors["memory"] * factor
    content["digest"] = content_digest(content, tensors)
    save_file(tensors, path, {"llbnad": json.dumps(content, sort_keys=True)})


def collapse(path):
    """A detector that gives every image the same score: its memory is far from every patch."""
    scale_memory(path, 0)


def move_threshold(path, factor):
    """Write a detector that ranks as before and finds more, with a factor below 1, or less."""
    model = Detector.load(path)
    moved = threshold_at(model.threshold.scores * factor, model.threshold.target_fpr, "none")
    replace(model, threshold=moved).save(path)


def told(folder, asset):
    """Return what Dagster's pages show of an asset."""
    return {name: entry.value for name, entry in events(folder, LINE)[asset].metadata.items()}


def instance_shows_the_detector(folder):
    """Return whether Dagster knows the stages that the challenger was made from."""
    return {"detector", "evaluation"} <= events(folder, LINE).keys()


def outcomes(report):
    return {one["name"]: one["outcome"] for one in report["findings"]}


def failed(report):
    return {name for name, outcome in outcomes(report).items() if outcome == "failed"}


def test_the_life_of_a_champion(workspace, capsys):
    client = MlflowClient(f"sqlite:///{workspace}/mlflow/mlflow.db")
    closed = client.get_run(json.loads(link_path(LINE).read_text())["run_id"]).info.end_time
    first = challenge(LINE)
    assert first["registered"] and first["champion"] is None
    assert outcomes(first) == {**dict.fromkeys(CHECKS, "passed"), **dict.fromkeys(COMPARISONS, "skipped")}
    assert first["advice"].startswith("nothing to compare with: look at the suspects before you trust it")
    assert champion(workspace) is None  # a challenge moves nothing
    assert f"orchestration review {LINE} --out review.html` shows the suspects, then " in next_step(LINE, first)
    assert next_step(LINE, first, in_dagster=True).startswith("asset `champion` promotes it")
    assert first["page"].endswith(f"/#/models/llbnad-{LINE}/versions/1?workflowType=machine_learning")
    assert not any(file.exists() for file in comparison_files(LINE))  # there is no champion yet
    promote(LINE, first["version"])
    assert capsys.readouterr().out.splitlines()[-1] == first["advice"]
    again = challenge(LINE)
    assert (again["registered"], again["version"], again["champion"]) == (False, "1", "1")
    assert next_step(LINE, again) == "nothing: version 1 is champion"

    tags = client.get_model_version(model_name(LINE), "1").tags
    assert tags["model.md5"] == first["md5"] and tags["git.commit"]
    assert tags["unproven"] == first["advice"]  # compared with itself since, it still is
    shown = command(workspace, ["python", "-m", "orchestration", "registry", "list", LINE], COLUMNS="300").stdout
    assert "look at the suspects before you trust it" in shown
    rows = [[cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line]
    (row,) = [row for row in rows if "champion" in row]
    assert (row[1], row[3], row[7]) == ("1", "champion", f"{read_metrics(LINE)['image_auroc']:.3f}")
    assert [int(row[4]), int(row[5])] == [read_metrics(LINE)[name] for name in ("n_train", "n_selected")]
    counts = Counter(outcomes(again).values())
    assert row[8] == f"{counts['passed']} passed, {counts['skipped']} skipped" and not counts["failed"]
    assert {name for name in tags if name.startswith("dvc.")} == {"dvc.raw", "dvc.purified"}  # the inspection page's
    metadata = Model.load(download_artifacts(f"models:/{model_name(LINE)}/1")).metadata
    assert json.loads(metadata["dvc.detector"]).keys() == {f"data/detector/{LINE}"}
    assert model_file(f"models:/{model_name(LINE)}@champion").read_bytes() == detector(workspace).read_bytes()

    good = detector(workspace).read_bytes()
    scale_memory(detector(workspace), 1 + 1e-5)  # other bytes, as good a detector
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("sensitivity_images: 0", "sensitivity_images: 8"))
    second = challenge(LINE)
    assert outcomes(second)["sensitivity"] == "passed"
    params.write_text(params.read_text().replace("sensitivity_images: 8", "sensitivity_images: 0"))
    card = client.get_model_version(model_name(LINE), "2").description
    assert card.startswith("Detector patchcore on efficientnet_lite2 at 64 px.")
    assert "was not measured" not in card and "by the check `sensitivity` below" in card  # which measured it
    assert "\n* spread passed: " in card and "\n* alarms skipped: " in card  # as sentences, not as JSON
    assert "model-versions/get-artifact?name=llbnad-noisy20&version=2&path=card%2Fsuspects.png" in card
    held = Path(download_artifacts(f"models:/{model_name(LINE)}/2/card"))
    files = {path.name for path in held.iterdir()}
    assert {"README.md", "suspects.png", "curves.png", "scores_beside_champion.png"} <= files
    assert (held / "README.md").read_text().count("spread passed: ") == 1
    run = client.get_run(client.get_model_version(model_name(LINE), "2").run_id)
    (logged,) = {client.get_logged_model(one.model_id).name for one in run.outputs.model_outputs}
    assert logged == "llbnad-patchcore"
    assert second["registered"] and second["version"] == "2" and second["advice"] is None
    promotion = f"`python -m orchestration registry promote {LINE} 2`"
    assert next_step(LINE, second) == f"{promotion} makes it champion instead of version 1"
    assert [file.name for file in comparison_files(LINE) if file.exists()] == [SCORES, IMAGES, TABLE]
    differing = pd.read_csv(comparison_files(LINE)[2])
    assert len(differing) and np.allclose(differing["champion"], differing["challenger"], rtol=1e-2)
    assert "unproven" not in client.get_model_version(model_name(LINE), "2").tags
    assert outcomes(second)["agreement"] == "passed" and outcomes(second)["alarms"] == "skipped"  # nothing newly learnt
    promote(LINE, "2")
    promote(LINE, "2")  # once more, as a schedule does: what it remembers of the champion before stays
    rollback(LINE)
    assert champion(workspace) == "1"
    shown = told(workspace, "champion")
    assert (shown["version"], shown["champion before"]) == ("1", "2") and "is champion again" in shown["outcome"]
    capsys.readouterr()
    with pytest.raises(typer.Exit) as refusal:
        promote(LINE, "2", if_accepted=True)
    assert refusal.value.exit_code == EXIT_REFUSED
    assert capsys.readouterr().out == (
        "version 2 of llbnad-noisy20 was rolled back by hand: version 1 stays champion; to promote it all the same: "
        "python -m orchestration registry promote noisy20 2\n"
    )
    client.update_model_version(model_name(LINE), "2", description="the lamp was new")
    # a schedule that comes by does not promote it again
    assert failed(challenge(LINE)) == {"standing"}
    assert client.get_model_version(model_name(LINE), "2").description == "the lamp was new"  # a person's own words
    with pytest.raises(RegistryError, match="no champion before"):
        rollback(LINE)

    detector(workspace).write_bytes(good)
    collapse(detector(workspace))
    third = challenge(LINE)
    assert {"spread", "agreement"} <= failed(third)
    assert champion(workspace) == "1"
    assert "promote noisy20 3` promotes it all the same" in next_step(LINE, third)
    refused = client.get_model_version(model_name(LINE), third["version"])
    assert "spread: " in refused.tags["refused"]
    assert refused.description.startswith("REFUSED by ") and "REFUSED by spread: " in refused.description
    assert "\n\nNext: " in refused.description
    after = client.get_run(run.info.run_id).info
    assert (after.status, after.end_time) == ("FINISHED", closed)  # challenges came later, and prolong no run
    with pytest.raises(typer.Exit):
        promote(LINE, third["version"], if_accepted=True)
    assert re.search(r"was refused \(.*spread: .*\): version 1 stays champion; ", capsys.readouterr().out)
    assert champion(workspace) == "1"
    promote(LINE, third["version"])
    said = client.get_model_version(model_name(LINE), third["version"]).description
    assert "Promoted by hand, although refused by spread: " in said and "REFUSED by" not in said
    assert "Next: " not in said


def test_a_detector_that_is_blind_to_what_the_champion_saw_is_refused(workspace, capsys):
    """Only the synthetic defects show it: it ranks as the champion does, and its threshold is possible."""
    good = detector(workspace).read_bytes()
    move_threshold(detector(workspace), 0.6)
    challenge(LINE)
    promote(LINE, "1")
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("sensitivity_images: 0", "sensitivity_images: 12"))
    detector(workspace).write_bytes(good)
    blind = challenge(LINE)
    assert failed(blind) == {"sensitivity"}
    (finding,) = [one for one in blind["findings"] if one["name"] == "sensitivity"]
    assert "BLIND" in finding["observed"] and "llbnad sensitivity" in finding["expected"]
    assert f"refused by sensitivity: `python -m orchestration review {LINE}" in next_step(LINE, blind)
    with pytest.raises(typer.Exit) as refusal:
        promote(LINE, blind["version"], if_accepted=True)
    assert refusal.value.exit_code == EXIT_REFUSED and champion(workspace) == "1"
    assert "BLIND" in capsys.readouterr().out


def test_newly_learnt_images_that_the_champion_calls_defects_are_named(workspace):
    """In the finding, as a table and a picture, and on the review page."""
    good, learnt = detector(workspace).read_bytes(), workspace / "data/purified" / LINE / "kept.parquet"
    whole, kept = learnt.read_bytes(), pd.read_parquet(learnt)
    kept.iloc[12:].to_parquet(learnt, index=False)
    move_threshold(detector(workspace), 0.5)  # a champion that calls nearly everything a defect
    challenge(LINE)
    promote(LINE, "1")
    detector(workspace).write_bytes(good)
    learnt.write_bytes(whole)
    refused = challenge(LINE)
    assert "alarms" in failed(refused)
    picture, table = comparison_files(LINE)[3:]
    named = pd.read_csv(table)
    assert {*named["image_id"]} <= {*kept["image_id"].iloc[:12]} and named["champion"].is_monotonic_decreasing
    (finding,) = [one for one in refused["findings"] if one["name"] == "alarms"]
    assert f"calls {len(named)} " in finding["observed"] and f"({named['image'][0]}, " in finding["observed"]
    assert picture.exists() and "the review page has them" in finding["expected"]
    assert command(workspace, ["python", "-m", "orchestration", "review", LINE, "--out", "page.html"]).returncode == 0
    page = (workspace / "page.html").read_text()
    assert page.count(NEWLY_LEARNT) == len(named) and f"{len(named)} kept images are newly learnt" in page
    promote(LINE, "2")
    challenge(LINE)  # it has learnt them itself
    assert not table.exists() and not picture.exists()


def test_the_version_in_use_is_not_called_refused_when_limits_change(workspace, capsys):
    client = MlflowClient(f"sqlite:///{workspace}/mlflow/mlflow.db")
    challenge(LINE)
    promote(LINE, "1")
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("min_spread: 0.01", "min_spread: 99"))
    again = challenge(LINE)
    assert failed(again) == {"spread"} and again["advice"]  # nothing was there to compare it with, then as now
    said = next_step(LINE, again)
    assert (
        said.startswith("version 1 is in use; if it came now, it would be refused by spread") and "promote " not in said
    )
    version = client.get_model_version(model_name(LINE), "1")
    assert "refused" not in version.tags and version.tags["unproven"]
    assert version.description.startswith("In use; if it came now, it would be refused by spread: ")
    capsys.readouterr()
    promote(LINE, "1", if_accepted=True)  # as the asset `champion` does
    assert "version 1 of llbnad-noisy20 is champion already" in capsys.readouterr().out
    params.write_text(params.read_text().replace("min_spread: 99", "min_spread: 0.01"))
    challenge(LINE)
    assert client.get_model_version(model_name(LINE), "1").description.startswith("Detector patchcore")


def test_one_label_of_a_person_refuses_the_detector_that_contradicts_it(workspace):
    """The image is named in the finding, in the tags and at the command line."""
    kept = pd.read_parquet(workspace / "data" / "purified" / LINE / "kept.parquet")
    image = kept.sort_values("score").iloc[0]
    review = workspace / "data" / "review" / "none.csv"
    review.write_text(f"image_id,verdict\n{image['image_id']},defect\n")
    done = command(workspace, ["python", "-m", "orchestration", "registry", "challenge", LINE])
    assert done.returncode == EXIT_REFUSED, done.stderr
    said = f"calls 1 of 1 images normal that people called defects ({image['path']})"
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert line.split()[1] == "verdicts" and said in line and "promote by hand" in line
    assert "skipped  agreement" in done.stdout
    client = MlflowClient(f"sqlite:///{workspace}/mlflow/mlflow.db")
    assert said in client.get_model_version(model_name(LINE), "1").tags["refused"]
    shown = told(workspace, "challenger")
    assert shown["champion"] == "none yet"
    assert (shown["version"], shown["refused"], shown["made by"]) == ("1", "verdicts", MADE_BY)
    judged = outcomes(json.loads((workspace / report_path(LINE)).read_text()))
    with stored(workspace) as instance:  # as after a run of the asset
        statuses = check_statuses(instance, "challenger", CHECKS, LINE)
        key = dg.AssetCheckKey(dg.AssetKey("challenger"), "verdicts")
        verdicts = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key].evaluation
        (run,) = instance.get_run_records(dg.RunsFilter(tags={"made by": MADE_BY}))
    words = {"passed": "SUCCEEDED", "failed": "FAILED", "skipped": "SKIPPED"}
    assert statuses == {name: words[outcome] for name, outcome in judged.items()}
    assert set(statuses.values()) == set(words.values()) and verdicts.partition == LINE
    assert said in verdicts.description and not verdicts.passed
    assert run.dagster_run.status == dg.DagsterRunStatus.SUCCESS and run.start_time and run.end_time
    assert run.dagster_run.tags["refused"] == "verdicts"  # as a run of the asset has it
    assert instance_shows_the_detector(workspace)
    review.write_text(f"image_id,verdict\n{image['image_id']},normal\n")  # as it was learnt
    done = command(workspace, ["python", "-m", "orchestration", "registry", "challenge", LINE, "--promote"])
    assert done.returncode == 0 and "REFUSED" not in done.stdout and "skipped  verdicts" in done.stdout, done.stderr
    # the first champion follows the same rule by every door: nothing has refused it
    assert (champion(workspace), told(workspace, "champion")["version"]) == ("1", "1")
    judged = told(workspace, "challenger")  # told again after the promotion
    assert (judged["refused"], judged["champion"], judged["next"]) == (
        "none",
        "1",
        next_after(LINE, "1", "1", unproven=True),
    )


def test_wrong_names_and_a_server_that_is_down_are_one_clear_line(workspace, monkeypatch):
    with pytest.raises(RegistryError, match="has no version: run"):
        promote(LINE, None)
    with pytest.raises(RegistryError, match=f"registry list {LINE}` shows which versions there are"):
        model_file(f"models:/{model_name(LINE)}@nobody")
    for command_of in (list_versions, rollback, lambda line: promote(line, None)):
        with pytest.raises(ConfigError, match=r"unknown scenario 'nope'; params\.yaml has"):
            command_of("nope")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}"
        done = command(workspace, ["python", "-m", "orchestration", "registry", "challenge", LINE],
                       MLFLOW_TRACKING_URI=uri)  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"orchestration registry challenge {LINE}" in done.stderr and "secret" not in done.stderr
    assert "nothing is lost" in done.stderr


def test_a_real_server_holds_the_registry(workspace, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = workspace / "server.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{workspace}/server.db", "--artifacts-destination", f"{workspace}/held"],
            cwd=workspace, env=environment(workspace, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        promote(LINE, challenge(LINE)["version"])
        assert model_file(f"models:/{model_name(LINE)}@champion").read_bytes() == detector(workspace).read_bytes()
        assert challenge(LINE)["champion"] == "1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_dagster_crowns_scores_a_folder_and_refuses(dagster_copy, cells):
    folder = dagster_copy
    assert champion(folder) == "1"
    with dg.DagsterInstance.from_config(str(folder / ".dagster")) as instance:
        crowned = instance.get_latest_materialization_event(dg.AssetKey("champion")).asset_materialization.metadata
        assert (
            crowned["registry"].value.endswith("/versions/1?workflowType=machine_learning")
            and "suspects (picture)" in crowned
        )
        picture = crowned["suspects (picture)"].value
        shown = instance.get_latest_materialization_event(dg.AssetKey("challenger")).asset_materialization.metadata
        wanted = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        events = [record.event_log_entry.dagster_event for record in instance.get_event_records(wanted)]
        statuses = check_statuses(instance, "challenger", CHECKS, LINE)
    found = [event.asset_check_evaluation_data for event in events]
    checks = {one.check_name: one for one in found if one.asset_key == dg.AssetKey("challenger")}
    # neither passed nor failed
    assert statuses == {**dict.fromkeys(CHECKS, "SUCCEEDED"), **dict.fromkeys(COMPARISONS, "SKIPPED")}
    assert checks.keys() == set(CHECKS) - set(COMPARISONS) and all(one.passed for one in checks.values())
    assert shown["check agreement"].value.startswith("skipped: there is no champion")
    assert {one.partition for one in found} == {LINE}  # of each stage's checks, too
    assert shown["registry"].value.endswith(f"/#/models/llbnad-{LINE}/versions/1?workflowType=machine_learning")
    assert float(shown["threshold"].value) > 0 and shown["kept"].value.endswith(" images")
    assert shown["suspects (picture)"].value.startswith("![suspects](/logs/pictures/")
    assert shown["checks"].value == f"{len(CHECKS) - len(COMPARISONS)} passed, {len(COMPARISONS)} skipped"
    assert shown["advice"].value.startswith("nothing to compare with: look at the suspects before you trust it")
    assert shown["skipped"].value == ", ".join(COMPARISONS)
    assert shown["champion"].value == "1"  # which it became after it was judged, in the same run
    config = {"ops": {"predictions": {"config": {"folder": str(cells / "bad"), "fpr": 0.2}}}}
    done = command(folder, ["dagster", "asset", "materialize", "--select", "predictions", "--partition", LINE,
                            "-m", "orchestration.definitions", "--config-json", json.dumps(config)])  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folder / f"data/predictions/{LINE}/contact_sheet.png").is_file()
    assert (folder / f"data/predictions/{LINE}/predictions.csv").read_text().count("defect") > 0

    save_image(folder / f"data/purified/{LINE}/plots/suspects.png")
    collapse(detector(folder))
    done = command(folder, ["python", "-m", "orchestration", "status", LINE, "--json"])
    assert json.loads(done.stdout)[0]["champion"] == "version 1; the newest detector was not challenged"
    done = materialise(folder, "challenger,champion", LINE)
    assert done.returncode == 0, done.stderr[-3000:]  # a refusal is no crash
    assert champion(folder) == "1"
    crowned = told(folder, "champion")
    assert crowned["version"] == "1" and "version 2 of llbnad-noisy20 was refused (" in crowned["outcome"]
    assert "version 1 stays champion; to promote it all the same: " in crowned["outcome"]
    assert crowned["suspects (picture)"] == picture != told(folder, "challenger")["suspects (picture)"]  # of version 1
    with stored(folder) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={"refused": told(folder, "challenger")["refused"]}))
        log = instance.all_logs(run.run_id)
        (spread,) = instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(dg.AssetKey("challenger"), "spread")]
        ).values()
    assert not spread.evaluation.passed and spread.evaluation.severity == dg.AssetCheckSeverity.ERROR
    warnings = [entry.user_message for entry in log if entry.level == logging.WARNING]
    assert warnings[0].startswith("version 2 of the detector is refused by ") and warnings[1] == crowned["outcome"]
    assert len(warnings) == 2 and not [entry for entry in log if entry.level > logging.WARNING]
    assert not [entry.user_message for entry in log if "%|" in entry.user_message]  # no bar of MLflow's download

    (folder / f"data/purified/{LINE}/kept.parquet").write_bytes(b"broken")  # the challenge ends before its verdict
    done = materialise(folder, "challenger", LINE)
    assert done.returncode != 0 and "kept.parquet is no manifest" in done.stderr
    assert not (folder / f"mlflow/registry/{LINE}.json").exists()  # nor is the last one's taken for it


def test_every_registry_command_is_documented():
    pages = "".join(page.read_text() for page in (REPOSITORY / "docs").glob("*.md"))
    commands = [one.name or one.callback.__name__ for one in app.registered_commands]
    assert len(commands) == 4
    for name in commands:
        assert re.search(rf"\b{name}\b", pages), name
