"""Dagster calls an asset stale exactly when DVC would have its stage run again: asked over GraphQL, as its UI asks."""

import json
import shutil
import sys
from contextlib import contextmanager

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from orchestration.assets.changes import change_key
from orchestration.assets.changes_checks import results
from orchestration.assets.dvc_assets import dvc_assets
from orchestration.assets.partitions import patterns
from orchestration.assets.staleness_sensor import staleness_sensor
from orchestration.pipeline.params import load_params
from orchestration.pipeline.repro import is_advice
from orchestration.pipeline.summary import in_one_line
from tests.pipeline.conftest import repro
from tests.pipeline.test_both_doors import stored
from tests.pipeline.test_settings import edit

QUERY = """query ($keys: [AssetKeyInput!], $partition: String) { assetNodes(assetKeys: $keys) {
  assetKey { path } staleStatus(partition: $partition) } }"""
BADGES = """query ($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetKey { path }
  assetChecksOrError { ... on AssetChecks { checks {
    executionForLatestMaterialization { status evaluation { severity description } } } } } } }"""
BESIDES = ("ingest", "drift", "challenger", "champion")  # partitioned as well, and no stages of DVC
TAIL = {"purified", "detector", "evaluation"}
FOLLOWING_DATA = {"raw", "noisy", "features", "sub_model_0", "sub_model_1", "scores", *TAIL}


class Ui:
    """Dagster of a workspace with its web server's answers, and the sensor's ticks."""

    def __init__(self, folder, context, instance):
        self.folder, self.context, self.instance = folder, context, instance
        self.found = patterns(folder, load_params(folder / "params.yaml"))
        self.sensor, self.cursor = staleness_sensor(folder, self.found), None

    def stale(self):
        """Return the stages' assets that are stale or missing, and those of the others."""
        asked = {"keys": [{"path": [name]} for name in (*self.found, *BESIDES)], "partition": "noisy20"}
        answer = execute_dagster_graphql(self.context.create_request_context(), QUERY, asked)
        states = {"/".join(one["assetKey"]["path"]): one["staleStatus"] for one in answer.data["assetNodes"]}
        assert len(states) == 12 + len(BESIDES)
        behind = {name for name, state in states.items() if state != "FRESH"}
        return behind & {*self.found}, behind - {*self.found}

    def badges(self):
        """Return the stages that have a yellow badge, whichever partition is looked at, with its text."""
        asked = {"keys": [{"path": change_key(name).path} for name in self.found]}
        answer = execute_dagster_graphql(self.context.create_request_context(), BADGES, asked)
        known = {change_key(name).path[-1]: name for name in self.found}
        nodes = answer.data["assetNodes"]
        checks = {known[one["assetKey"]["path"][-1]]: one["assetChecksOrError"]["checks"] for one in nodes}
        assert len(checks) == 12
        found = {name: check["executionForLatestMaterialization"] for name, (check,) in checks.items()}
        yellow = {name: one["evaluation"] for name, one in found.items() if one["status"] == "FAILED"}
        assert {one["severity"] for one in yellow.values()} <= {"WARN"}
        return {name: one["description"] for name, one in yellow.items()}

    def tick(self):
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            result = self.sensor(context)
        self.cursor = result.cursor
        return result.skip_reason.skip_message


@contextmanager
def ui_of(folder, code):
    code.write_text(f"from pathlib import Path\nfrom orchestration.definitions import definitions\n"
                    f"defs = definitions(Path({str(folder)!r}))\n")  # fmt: skip
    origin = LoadableTargetOrigin(executable_path=sys.executable, python_file=str(code), attribute="defs")
    with stored(folder) as instance:
        target = InProcessWorkspaceLoadTarget(InProcessCodeLocationOrigin(origin))
        with WorkspaceProcessContext(instance, target) as context:
            yield Ui(folder, context, instance)


def edited_selection(folder):
    edit(folder, "noisy20", selection={"policy": "fraction", "keep": 0.5})


def edited_calibration(folder):
    edit(
        folder,
        "noisy20",
        calibration={"target_fpr": 0.2, "folds": 3, "bound": "robust", "unsure": True, "min_area": 0, "burst": 1},
    )


def edited_code(folder):
    with (folder / "llbnad/policies/mixture.py").open("a") as stream:
        stream.write("# edited\n")


def edited_data(folder):
    (folder / "data/own/cells/good/0000_again.png").write_bytes(
        next((folder / "data/own/cells/good").iterdir()).read_bytes() + b"\0"
    )


def observation(instance, asset):
    wanted = dg.AssetRecordsFilter(asset_key=change_key(asset), asset_partitions=["noisy20"])
    return instance.fetch_observations(wanted, limit=1).records[0].asset_observation


def test_stale_assets_are_those_that_dvc_would_run(dagster_copy, tmp_path):
    kept = tmp_path / "kept"
    with ui_of(dagster_copy, tmp_path / "location.py") as ui:
        assert ui.stale() == (set(), set())  # everything has just been materialised, and the sensor has not looked yet
        assert ui.tick() == "noisy20: all 12 up to date" and ui.badges() == {}
        for change, path, stale, why in (
            (edited_code, "llbnad/policies/mixture.py", {"code", *TAIL}, "code: llbnad/policies/mixture.py"),
            (edited_data, "data/own/cells", FOLLOWING_DATA, "data/own/cells modified"),
            (edited_calibration, "params.yaml", {"params", "settings", *TAIL} - {"purified"},
             "calibration of noisy20 in params.yaml"),
            (edited_selection, "params.yaml", {"params", "settings", *TAIL}, "selection of noisy20 in params.yaml"),
        ):  # fmt: skip
            copy = shutil.copytree if (dagster_copy / path).is_dir() else shutil.copy2
            copy(dagster_copy / path, kept)
            change(dagster_copy)
            assert " stale of 12: " in (said := ui.tick()) and f"({why})" in said
            assert ui.stale() == (stale, set()), change
            assert ui.badges().keys() == stale and f"DVC would run it again for noisy20: {why}" in ui.badges().values()
            assert observation(ui.instance, "evaluation").metadata["DVC says"].value == "out of date"
            if change is not edited_selection:
                shutil.rmtree(dagster_copy / path) if kept.is_dir() else (dagster_copy / path).unlink()
                shutil.move(kept, dagster_copy / path)
        assert observation(ui.instance, "purified").metadata["because"].value == why
        _run_the_edit(ui)


def _run_the_edit(ui):
    """An asset that ran is fresh at once, with the stages before it that had to run; one after a stale one is not."""
    assets = dvc_assets(ui.folder, ui.found)

    def run(asset):
        assert dg.materialize([assets], selection=asset, partition_key="noisy20", instance=ui.instance).success

    run("detector")  # unchanged, as long as `purified` is what it was
    assert ui.stale() == (TAIL, set())
    run("purified")
    assert ui.stale() == (TAIL - {"purified"}, {"drift"})  # drift compares shares of rejected images
    assert ui.tick().startswith("noisy20: 2 stale of 12: detector, evaluation (data/purified/noisy20/kept.parquet ")
    repro(ui.folder)
    ui.tick()
    assert ui.stale() == (set(), {"drift", "challenger"})  # the registered detector is older than the one that is made
    assert ui.tick() == "noisy20: all 12 up to date" and ui.badges() == {}


def test_a_badge_names_the_scenarios_and_the_reasons():
    why = {f"s{number}": {"purified": "selection"} for number in range(5)} | {"fresh": {}}
    raw, purified = results(["raw", "purified"], why)
    assert raw.passed and raw.description == "DVC would run it for no scenario"
    assert not purified.passed and purified.severity == dg.AssetCheckSeverity.WARN
    assert purified.description == (
        "DVC would run it again for s0: selection; s1: selection; s2: selection; and 2 more"
    )
    assert len(purified.metadata["scenarios"].records) == 5


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        ("", "purified@a: unchanged"),
        ("purified a: 2 rounds\npurified a: few images", "purified@a: unchanged; 2 rounds"),
        ("WARNING: kept few", "purified@a: unchanged; WARNING: kept few"),
    ],
)
def test_a_summary_is_one_line(summary, line):
    assert in_one_line("purified@a", "unchanged", summary) == line


def test_each_stage_ends_with_one_line_in_the_log_and_dvc_advises_nothing(by_dagster):
    with stored(by_dagster) as instance:
        logs = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    said = [entry.user_message for entry in logs if not entry.is_dagster_event]
    numbers = json.loads((by_dagster / "data/evaluation/noisy20/metrics.json").read_text())
    assert not [line for line in said if is_advice(line)]
    (last,) = [line for line in said if line.startswith("evaluation@noisy20: ")]
    assert last.startswith(f"evaluation@noisy20: ran; I-AUROC {numbers['image_auroc']:.3f}, ")
    for stage in ("settings@noisy20", "sub_model@noisy20-0", "scores@noisy20", "detector@noisy20"):
        begins, ends = [number for number, line in enumerate(said) if stage in line]
        assert said[begins] == f"Running stage '{stage}':" and said[ends].startswith(f"{stage}: ran; "), said[ends]
    assert said.index("Running stage 'evaluation@noisy20':") > ends  # the stage before has ended
