"""Live scoring with a real registry: the command, the champion of a line, the sensor and the control chart."""

import csv
import json
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from llbnad.inference.request import Limits
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at
from orchestration.__main__ import application
from orchestration.assets import command as asset_command
from orchestration.assets.inspection import inspected_asset, inspection_sensor
from orchestration.commands.registry import promote, rollback
from orchestration.inspection.card import champion_facts
from orchestration.inspection.champion import Champion, champion_finder
from orchestration.inspection.chart import chart_check, read_chart, write_chart
from orchestration.inspection.inspector import Inspector, Settings
from orchestration.inspection.ledger import Ledger, LedgerRow
from orchestration.inspection.page import inspection_app
from orchestration.inspection.watching import only_one
from orchestration.line.inbox import FileMark
from orchestration.pipeline.params import ArrivalSettings
from orchestration.registry.register_version import challenge
from tests.conftest import save_image
from tests.pipeline.conftest import COLD, environment, wait_for

LINE = "noisy20"


@pytest.fixture
def workspace(dagster_copy, monkeypatch):
    """A finished workspace with a champion and three new images, as the working directory."""
    monkeypatch.chdir(dagster_copy)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    images = dagster_copy / "data" / "inspect" / LINE
    images.mkdir(parents=True)
    for number, path in enumerate(sorted((dagster_copy / "data" / "own" / "cells" / "good").iterdir())[:3]):
        shutil.copy(path, images / f"{number}.png")
    (images / "bad.png").write_bytes(b"no image")
    return dagster_copy


def rows(workspace):
    path = workspace / "data" / "inspected" / LINE / "inspected.csv"
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def look_twice(inspector):
    return [*inspector.look(), *inspector.look()]


def test_the_champion_scores_what_is_there_and_the_sensor_asks_for_it(workspace):
    sensor = inspection_sensor(workspace, ArrivalSettings(stable_seconds=0))

    def asked(instance):
        return sensor(dg.build_sensor_context(instance))

    with dg.DagsterInstance.ephemeral() as instance:
        (request,) = asked(instance).run_requests
        assert request.tags["llbnad/inspect"] == LINE
        assert request.run_config["ops"]["inspected"]["config"] == {"line": LINE}
        assert asked(instance).run_requests[0].run_key == request.run_key  # so that it runs once
        with only_one(workspace / "data" / "inspected" / LINE):
            assert "a `watch` looks after it" in asked(instance).skip_reason.skip_message
        done = CliRunner().invoke(application("watch"), ["watch", LINE, "--once", "--train", "--device", "cpu"])
        assert done.exit_code == 0 and f"{LINE}: 3 images scored" in done.output and "1 bad images" in done.output
        assert f"{LINE}: no new images" in asked(instance).skip_reason.skip_message
    found = {row["path"]: row for row in rows(workspace)}
    assert {row["model"] for row in found.values()} == {f"llbnad-{LINE} version 1"}
    assert found["0.png"]["label"] in ("normal", "unsure", "defect") and found["bad.png"]["error"]
    assert found["0.png"]["regions"].isdecimal() and found["bad.png"]["regions"] == ""
    out = workspace / "data" / "inspected" / LINE
    assert (out / found["0.png"]["picture"]).is_file() and (out / "control_chart.png").is_file()
    with (out / "control_chart.csv").open() as stream:
        chart = {row["label"]: row for row in csv.DictReader(stream)}
    assert chart["defect"]["images"] == "3" and chart["defect"]["basis"] == "the model's promise"
    assert len(list((workspace / "data" / "incoming" / LINE).iterdir())) == 3
    card = champion_facts(LINE)
    kept = len(pd.read_parquet(workspace / "data" / "purified" / LINE / "kept.parquet"))
    assert card["Learnt from"].startswith(f"{kept} of ") and "policy mad" in card["Learnt from"]
    assert "spread passed" in card["Checks"] and "Purified (DVC hash)" in card


def test_a_damaged_record_of_one_line_stops_no_other_line(workspace):
    shutil.copytree(workspace / "data" / "inspect" / LINE, workspace / "data" / "inspect" / "line")
    record = workspace / "data" / "inspected" / LINE / "inspected.sqlite"
    record.parent.mkdir(parents=True)
    record.write_bytes(b"no database, but longer than its header, which SQLite looks at first" * 9)
    sensor = inspection_sensor(workspace, ArrivalSettings(stable_seconds=0))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("scenario", [LINE, "line"])
        (request,) = sensor(dg.build_sensor_context(instance)).run_requests
        assert request.tags["llbnad/inspect"] == "line"
        shutil.rmtree(workspace / "data" / "inspect" / "line")
        said = sensor(dg.build_sensor_context(instance)).skip_reason.skip_message
    assert f"{record} is no record of scored images (" in said and "move it away, and all are scored anew" in said


def test_the_settings_of_a_line_are_those_of_watch_and_sensor(workspace, monkeypatch):
    monkeypatch.setenv("LLBNAD_WEBHOOK_SECRET", "a secret of the receiver")
    params = workspace / "params.yaml"
    address = "http://127.0.0.1:1/"  # nobody listens there
    rate = "train: true, fpr: 0.3, min_area: 1, drift_images: 2"
    own = f"{{{LINE}: {{webhook: '{address}', {rate}}}, elsewhere: {{train: true}}}}"
    params.write_text(f"{params.read_text()}\ninspection: {own}\n")
    out = workspace / "data" / "inspected" / LINE
    sensor = inspection_sensor(workspace, ArrivalSettings(stable_seconds=0))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("scenario", [LINE])
        (request,) = sensor(dg.build_sensor_context(instance)).run_requests
        assert request.job_name == "inspect"
        done = CliRunner().invoke(application("watch"), ["watch", LINE, "--once", "--device", "cpu"])
        assert done.exit_code == 0, done.output
        found = {row["path"]: row for row in rows(workspace)}
        with closing(Ledger(out)) as ledger:
            assert ledger.undelivered() == 4  # the bad image is told too
            ledger.connection.execute("UPDATE outbox SET due = 0")
        again = sensor(dg.build_sensor_context(instance))
        assert {one.job_name for one in again.run_requests} == {"inspect", "check_drift"}
        drift = next(one for one in again.run_requests if one.job_name == "check_drift")
        assert drift.partition_key == LINE and json.loads(again.cursor) == {LINE: 2}
        third = sensor(dg.build_sensor_context(instance, cursor=again.cursor))
        assert [one.job_name for one in third.run_requests] == ["inspect"]  # the messages wait still
        shutil.rmtree(out)
        shutil.rmtree(workspace / "data" / "inspect" / LINE)
        last = sensor(dg.build_sensor_context(instance, cursor=again.cursor))
        assert json.loads(last.cursor) == {LINE: 0}
        assert "inspection.elsewhere of params.yaml: there is no folder" in last.skip_reason.skip_message
    model = Model.load(workspace / "data" / "detector" / LINE / "llbnad.safetensors")
    assert float(found["0.png"]["threshold"]) == model.threshold.at(0.3).value
    assert len(list((workspace / "data" / "incoming" / LINE).iterdir())) == 3


def test_a_promotion_is_followed_by_watcher_and_page(workspace, tmp_path):
    """The registry gets another champion while both are at work; nothing is started again."""
    followed = Champion(champion_finder(LINE))
    first = followed.current
    with closing(Ledger(tmp_path / "out")) as ledger:
        inspector = Inspector(Settings(workspace / "data" / "inspect" / LINE, 0, 0), ledger, followed)
        before = {row.path: row for row in look_twice(inspector)}
        app = inspection_app(followed, lambda: {}, ["testserver"], Limits())
        client = TestClient(app)
        (image,) = (workspace / "data" / "inspect" / LINE).glob("0.png")
        content, sent = image.read_bytes(), {"Content-Type": "application/octet-stream"}
        old = client.post("/api/score", content=content, headers=sent).json()

        path = workspace / "data" / "detector" / LINE / "llbnad.safetensors"
        low = threshold_at(first.threshold.scores / 100, 0.01, "none")  # by which every image is a defect
        replace(Model.load(path), threshold=low).save(path)
        assert challenge(LINE)["version"] == "2" and not followed.refresh()  # a challenge changes nothing
        promote(LINE, "2")
        assert followed.refresh() and not followed.refresh()

        shutil.copy(image, image.with_name("later.png"))
        (later,) = look_twice(inspector)
        new = client.post("/api/score", content=content, headers=sent).json()
        names = [old["image"], new["image"]]
        told = client.post("/api/labels", json={"fpr": 0.01, "images": names}).json()
    assert before["0.png"].model == old["model"] == f"llbnad-{LINE} version 1"
    assert later.model == new["model"] == told["model"] == f"llbnad-{LINE} version 2"
    assert (before["0.png"].label, later.label, new["label"]) == ("normal", "defect", "defect")
    assert told["labels"] == ["normal", "defect"]  # each by the model that scored it
    rollback(LINE)
    assert followed.refresh() and followed.current.name == first.name


def test_the_control_chart_is_a_check(workspace):
    out = workspace / "data" / "inspected" / LINE
    empty = chart_check(read_chart(out), LINE)
    assert empty.passed is None and empty.description == f"no hour of {LINE} has limits yet"
    with closing(Ledger(out)) as ledger:
        for number in range(220):
            hour, label = number // 20, "defect" if number % 10 == 0 or number >= 205 else "normal"
            moment = f"2026-11-30T{hour:02d}:00:00+00:00"
            ledger.add(LedgerRow(f"{number:032d}", moment, f"{number}.png", "0", "m", 1.0, 0.5, label, "", ""),
                       f"{number}.png", FileMark(number, 1, 1))  # fmt: skip
    written = chart_check(write_chart(out, LINE), LINE)
    read = chart_check(read_chart(out), LINE)
    assert read == written and not read.passed
    assert "2026-11-30T10:00 UTC: 80.0% of 20 images are defect" in read.description and "HIGH" in read.description
    told = CliRunner().invoke(application("drift"), ["drift", LINE])
    assert told.exit_code == 0 and f"control chart: {read.description}" in told.output.replace("\n", " ")


def test_the_asset_inspected_scores_once_and_shows_the_chart(workspace, monkeypatch):
    monkeypatch.setattr(asset_command, "COMMAND", (sys.executable, "-m", "orchestration"))
    inspected = inspected_asset(workspace)

    def shown(line):
        config = {"ops": {"inspected": {"config": {"line": line}}}}
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([inspected], instance=instance, run_config=config)
        assert [one.check_name for one in result.get_asset_check_evaluations()] == ["control_chart"] * bool(line)
        return [{name: value.value for name, value in event.metadata.items()}
                for event in result.asset_materializations_for_node("inspected")]  # fmt: skip

    (first,) = shown(LINE)
    assert (first["images scored"], first["bad images"], first["model"]) == (3, 1, f"llbnad-{LINE} version 1")
    assert first["control chart (picture)"].startswith("![") and "defect in the newest hour" in first
    before = rows(workspace)
    assert first["with regions"] == sum(row["regions"] not in ("", "0") for row in before)
    (again,) = shown(LINE)
    assert again["images scored"] == 0 and rows(workspace) == before
    assert shown("") == []  # no line is named


def test_a_watcher_that_is_killed_loses_nothing(workspace, cold_programs):
    command = [COLD, "-m", "orchestration", "watch", LINE, "--device", "cpu", "--threads", "1"]
    images = workspace / "data" / "inspect" / LINE
    with subprocess.Popen(command, env=environment(workspace, cold=True), cwd=workspace) as process:
        assert wait_for(lambda: bool(rows(workspace)), 60)
        process.kill()
    before = rows(workspace)
    for seed in range(6):
        save_image(images / f"after-{seed}.png", seed)
    CliRunner().invoke(application("watch"), ["watch", LINE, "--once", "--device", "cpu"])
    after = rows(workspace)
    assert after[: len(before)] == before
    assert sorted(row["path"] for row in after) == sorted(path.name for path in images.iterdir())
    told = CliRunner().invoke(application("drift"), ["drift", LINE])
    assert told.exit_code == 0 and "scored images: the images look different to the encoder" in told.output
    report = json.loads((workspace / "data" / "drift" / LINE / "traffic.json").read_text())
    known = set(pd.read_parquet(workspace / "data" / "noisy" / LINE / "manifest.parquet")["image_id"])
    unknown = {row["sha256"] for row in after if not row["error"]} - known  # what was learnt is left out
    assert report["n_batch"] == len(unknown) >= 6 and report["drifted"]
