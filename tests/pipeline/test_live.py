"""Live scoring with a real registry: the command, the champion of a line, the sensor and the control chart."""

import csv
import json
import shutil
import subprocess
import sys

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestration.__main__ import application
from orchestration.assets import command as asset_command
from orchestration.assets.inspection import inspected_asset, inspection_sensor
from orchestration.inspection.card import champion_facts
from orchestration.inspection.watching import only_one
from orchestration.pipeline.params import ArrivalSettings
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


def test_the_asset_inspected_scores_once_and_shows_the_chart(workspace, monkeypatch):
    monkeypatch.setattr(asset_command, "COMMAND", (sys.executable, "-m", "orchestration"))
    inspected = inspected_asset(workspace)

    def shown(line):
        config = {"ops": {"inspected": {"config": {"line": line}}}}
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([inspected], instance=instance, run_config=config)
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
