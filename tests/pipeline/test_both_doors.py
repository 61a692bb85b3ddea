"""`dvc repro` and Dagster lead to the same bytes, and neither computes what the other has done."""

import asyncio
import json
import shutil
import time

import dagster as dg
import pandas as pd
import yaml
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.loader import LoadingContextForTest

from orchestration.assets.asset_metadata import lines_of
from orchestration.assets.backfill import record_materialisations
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.staleness import states, why_behind
from orchestration.pipeline.tables import escaped
from tests.pipeline.conftest import command, materialise, repro


def hashes(folder, scenario="noisy20"):
    stages = dvc.read_lock(folder)["stages"]
    wanted = {name: stage for name, stage in stages.items() if scenario in name or name == "raw@cells"}
    return {out["path"]: out["md5"] for stage in wanted.values() for out in stage["outs"]}


def stored(folder):
    """Dagster's record of a workspace."""
    return dg.DagsterInstance.from_ref(dg.DagsterInstance.from_config(str(folder / ".dagster")).get_ref())


def check_statuses(instance, asset, names, scenario):
    """The status of an asset's checks by name, as Dagster's pages have it."""
    found = {}
    for name in names:
        (newest,) = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(asset), name), limit=1, partition_filter=PartitionKeyFilter(key=scenario)
        )
        found[name] = asyncio.run(newest.resolve_status(LoadingContextForTest(instance))).value
    return found


def events(folder, scenario):
    """The latest materialisation of each asset."""
    with stored(folder) as instance:
        found = {}
        for key in instance.all_asset_keys():
            wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[scenario])
            records = instance.fetch_materializations(wanted, limit=1).records
            if records:
                found[key.to_user_string()] = records[0].asset_materialization
        return found


def stages(found):
    """Those that are stages of dvc.yaml; the others are Dagster's alone."""
    return {asset: event for asset, event in found.items() if "dvc stage" in event.metadata}


def test_two_fresh_runs_through_either_door_have_the_same_bytes(by_dvc, by_dagster):
    first, second = hashes(by_dvc), hashes(by_dagster)
    assert len(first) >= 18
    assert first == second


def test_after_dagster_dvc_has_nothing_to_do(dagster_copy):
    status = command(dagster_copy, ["dvc", "status"])
    assert "up to date" in status.stdout, status.stdout
    assert "Running stage" not in repro(dagster_copy)


def test_dagster_shows_versions_metrics_pictures_checks_and_the_mlflow_run(by_dagster):
    found = events(by_dagster, "noisy20")
    for asset in ("ingest", "drift"):
        assert found[asset].metadata["outcome"].value == "no production line"
    found = stages(found)
    assert set(found) == {"code", "params", "raw", "settings", "noisy", "features", "sub_model_0", "sub_model_1",
                          "scores", "purified", "detector", "evaluation"}  # fmt: skip
    lock = dvc.read_lock(by_dagster)
    for asset, event in found.items():
        stage = event.metadata["dvc stage"].value
        assert event.tags["dagster/data_version"] == dvc.data_version(lock, stage), asset
        assert event.metadata["outcome"].value == "ran"
        assert (
            event.metadata["command"].value == lock["stages"][stage]["cmd"] and "$" not in lock["stages"][stage]["cmd"]
        )
    summary = found["evaluation"].metadata["summary"]  # a list, since a text would lose its line breaks
    assert isinstance(summary, dg.MarkdownMetadataValue) and summary.value.startswith("* evaluation noisy20: I-AUROC ")
    assert found["noisy"].metadata["summary"].value.startswith("noisy noisy20: 42 training images")
    with stored(by_dagster) as instance:
        tags = [run.tags["ran"].split(", ") for run in instance.get_runs() if "ran" in run.tags]
    assert sorted(name for names in tags for name in names) == sorted(found)  # each stage in one of them
    purified = [name.partition(",")[0] for name in found["purified"].metadata]  # without "first 30 rows"
    assert purified[:3] == ["outcome", "summary", "policy"] and purified[-1] == "outputs"
    assert purified.index("suspects (picture)") < purified.index("suspects.csv") < purified.index("scores.csv")
    assert found["purified"].metadata["policy"].value.startswith("mad")
    one = found["features"]
    assert one.tags["dagster/data_version"] == next(iter(dvc.outputs(lock, "features@noisy20").values()))
    for asset, name in (("purified", "suspects"), ("evaluation", "curves")):
        shown = found[asset].metadata[f"{name} (picture)"].value
        *folders, file, kind = shown.removeprefix(f"![{name}](/logs/").partition(")")[0].split("/")
        assert by_dagster.joinpath(".dagster/storage", *folders, f"{file}.{kind}").read_bytes().startswith(b"\xff\xd8")
    metrics = json.loads((by_dagster / "data/evaluation/noisy20/metrics.json").read_text())
    assert found["evaluation"].metadata["image_auroc"].value == float(f"{metrics['image_auroc']:.4g}")
    listed = lines_of("notes", metrics["notes"])
    assert {name: found["evaluation"].metadata[name].value for name in listed} == {
        name: getattr(one, "value", one) for name, one in listed.items()
    }
    assert escaped(metrics["notes"][0]) in str(found["purified"].metadata.get("notes", ""))
    kept = len(pd.read_parquet(by_dagster / "data/purified/noisy20/kept.parquet"))
    assert found["purified"].metadata["rows of kept.parquet"].value == kept
    assert found["evaluation"].metadata["mlflow"].value.startswith("http")
    assert found["purified"].metadata["images are in"].value.startswith("data/own/cells")
    assert (by_dagster / found["detector"].metadata["model file"].value).is_file()


def test_after_dvc_dagster_runs_nothing(copy_of):
    before = hashes(copy_of)
    done = materialise(copy_of, "+key:evaluation", "noisy20")
    assert done.returncode == 0, done.stderr[-3000:]
    found = stages(events(copy_of, "noisy20"))
    assert len(found) == 12
    assert {event.metadata["outcome"].value for event in found.values()} == {"unchanged"}
    assert hashes(copy_of) == before


def test_plain_dvc_runs_are_told_to_dagster_once(copy_of, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(copy_of / ".dagster"))
    assert record_materialisations(copy_of, ["line"]) == 12
    assert record_materialisations(copy_of, ["line"]) == 0
    with stored(copy_of) as instance:
        (run,) = instance.get_run_records()  # of the checks
        said = [entry.message for entry in instance.all_logs(run.dagster_run.run_id)]
    assert (run.dagster_run.job_name, run.dagster_run.status) == ("made_outside_dagster", dg.DagsterRunStatus.SUCCESS)
    assert run.start_time and run.end_time  # without them, its pages say "Starting…" for ever
    assert run.dagster_run.tags["ran"].startswith("code, ") and run.dagster_run.tags["ran"].endswith("evaluation")
    assert run.dagster_run.tags["dagster/partition"] == "line" and "make run" in run.dagster_run.tags["made by"]
    assert any(", raw, " in line and line.endswith(" made outside Dagster, by dvc repro or make run") for line in said)
    event = events(copy_of, "line")["raw"]
    assert event.metadata["command"].value == "python -m orchestration.stages.raw line"
    assert event.metadata["rows of left_out.csv"].value == 3
    for verdict in ("normal", "defect"):  # every time that something has changed, with its checks
        image = pd.read_parquet(copy_of / "data/purified/line/kept.parquet")["image_id"].min()
        (copy_of / "data/review/none.csv").write_text(f"image_id,verdict\n{image},{verdict}\n")
        time.sleep(0.1)
        repro(copy_of, "purified@line")
        assert record_materialisations(copy_of, ["line"]) == 1


def test_lost_outputs_are_restored_and_dagster_says_so(copy_of):
    shutil.rmtree(copy_of / "data" / "purified")
    assert materialise(copy_of, "purified", "noisy20").returncode == 0
    assert events(copy_of, "noisy20")["purified"].metadata["outcome"].value == "restored from cache"
    assert (copy_of / "data" / "purified" / "noisy20" / "kept.parquet").is_file()


def test_an_edit_reruns_what_it_must_and_nothing_else(copy_of):
    path = copy_of / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scenarios"]["noisy20"]["selection"] = {"policy": "fraction", "keep": 0.5}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    found = states(copy_of, load_params(path), ["noisy20", "line"])
    assert not why_behind(found["line"])  # of the one stage `params`, too: another entry has changed
    ran = {line.split("'")[1] for line in repro(copy_of).splitlines() if line.startswith("Running stage")}
    assert ran == {"params", "settings@noisy20", "purified@noisy20", "detector@noisy20", "evaluation@noisy20"}
    assert {*why_behind(found["noisy20"])} == ran  # told before anything ran
    summary = json.loads((copy_of / "data/purified/noisy20/summary.json").read_text())
    assert summary["kept_share"] == 0.5
    # and back: DVC remembers what comes after the one stage that any edit of the file runs
    params["scenarios"]["noisy20"]["selection"] = {"policy": "mad", "k": 2.5}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    ran = [line for line in repro(copy_of).splitlines() if line.startswith("Running stage")]
    assert ran == ["Running stage 'params':"]


def test_an_unknown_key_stops_everything_before_anything_runs(copy_of):
    path = copy_of / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scenarios"]["noisy20"]["colour"] = "blue"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    done = materialise(copy_of, "raw", "noisy20")
    assert done.returncode != 0
    assert "scenarios.noisy20.colour is an unknown key" in done.stdout + done.stderr
    run = command(copy_of, ["python", "-m", "orchestration", "run"])
    assert (run.returncode, "Running" in run.stdout) == (2, False)
    assert "scenarios.noisy20.colour is an unknown key" in run.stderr


def test_unlabelled_line_gets_a_detector_suspects_and_no_metrics(by_dvc):
    metrics = json.loads((by_dvc / "data/evaluation/line/metrics.json").read_text())
    assert metrics["image_auroc"] is None and metrics["contamination_before"] is None
    assert metrics["n_train"] == 24
    rejected = pd.read_csv(by_dvc / "data/raw/line/left_out.csv").set_index("path")["reason"].to_dict()
    assert rejected == {"again.png": "duplicate", "broken.png": "unreadable", "empty.png": "unreadable"}
    assert len(list((by_dvc / "data/own/line").iterdir())) == 27  # nothing is deleted
    for picture in ("purified/line/plots/suspects.png", "evaluation/line/plots/scores.png"):
        assert (by_dvc / "data" / picture).is_file()
    assert (by_dvc / "data/detector/line/llbnad.safetensors").is_file()


def test_images_are_stored_once(by_dvc):
    """A set below data/ is only read: nothing is copied from it, and the manifest points at it."""
    assert not list((by_dvc / "data/raw/line/images").iterdir())
    paths = pd.read_parquet(by_dvc / "data/raw/line/manifest.parquet")["path"]
    assert all((by_dvc / path).is_file() and path.startswith("data/own/line/") for path in paths)


def test_outputs_hold_no_absolute_path_and_nothing_of_the_clock(by_dvc):
    for file in [*by_dvc.glob("data/*/noisy20/**/*.json"), *by_dvc.glob("data/*/noisy20/**/*.csv")]:
        assert str(by_dvc) not in file.read_text(), file


def test_second_run_says_that_there_is_nothing_to_do(copy_of):
    done = command(copy_of, ["python", "-m", "orchestration", "run"])
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert "oracle" in done.stdout and "noisy20" in done.stdout
