"""A champion is exported from a real registry by its address alone; what cannot be exported is refused at once."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from llbnad.config import RegionConfig
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.errors import ConfigError
from llbnad.inference.exported import Exported
from llbnad.inference.predict import Predictor, threshold_of
from llbnad.model.model import Model
from orchestration.__main__ import application
from orchestration.commands.export import IMAGES
from orchestration.pipeline.outputs import read_noisy
from orchestration.registry.store import RegistryError

pytest.importorskip("onnxscript")

LINE = "noisy20"
MODEL = f"data/detector/{LINE}/llbnad.safetensors"


@pytest.fixture
def workspace(dagster_copy, monkeypatch):
    """A finished workspace with a champion, as the working directory."""
    monkeypatch.chdir(dagster_copy)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return dagster_copy


def exported(*arguments):
    return CliRunner().invoke(
        application("export"), ["export", *map(str, arguments), "--out", "EXPORTED", "--format", "onnx"]
    )


def test_the_champion_is_exported_by_its_address_and_decides_as_its_model_file(workspace):
    done = exported(f"models:/llbnad-{LINE}@champion")
    assert done.exit_code == 0, done.output
    report = json.loads((workspace / "EXPORTED" / "parity.json").read_text())["onnx"]
    tested = read_noisy(LINE).query("split == 'test'")
    assert report["passed"] and report["images"] == min(IMAGES, len(tested))
    graph, model = Exported.load(workspace / "EXPORTED" / report["file"]), Model.load(workspace / MODEL)
    assert threshold_of(graph, None).summary() == model.threshold.summary()
    assert graph.pixel_threshold.summary() == model.pixel_threshold.summary()
    files = [workspace / path for path in tested["path"][:4]]
    ours, theirs = (
        list(one.predict(files, model.threshold, model.pixel_threshold)) for one in (Predictor(model), graph)
    )
    assert [one.label for one in ours] == [one.label for one in theirs]
    assert [one.score for one in ours] == pytest.approx([one.score for one in theirs], abs=1e-4)
    assert [len(one.regions) for one in ours] == [len(one.regions) for one in theirs]


def test_a_region_that_depends_on_the_size_is_exported_for_the_size_of_the_images(workspace):
    special = workspace / "special.safetensors"
    replace(Model.load(workspace / MODEL), region=RegionOfInterest(RegionConfig(border=0.1))).save(special)
    done = exported(special, LINE)
    assert done.exit_code == 0 and "take images of 300 × 300 pixels" in done.output, done.output
    assert json.loads((workspace / "EXPORTED" / "parity.json").read_text())["onnx"]["passed"]


def test_what_cannot_be_exported_is_refused_before_any_image_is_read(workspace):
    model, special = Model.load(workspace / MODEL), workspace / "special.safetensors"
    shutil.rmtree(workspace / "data" / "own")  # whoever reads an image fails
    replace(model, region=RegionOfInterest(RegionConfig(border=0.1))).save(special)
    for size, reason in (("7x7", "no image of 7 × 7 pixels"), ("7", "expected width x height"), ("0x7", "at least 1")):
        done = exported(special, LINE, "--size", size)
        assert isinstance(done.exception, ConfigError) and reason in str(done.exception), done.output
        assert not list(workspace.glob("EXPORTED/*"))


def test_an_address_that_is_not_there_or_names_no_scenario_is_one_line(workspace):
    done = exported(f"models:/llbnad-{LINE}@nobody")
    assert isinstance(done.exception, RegistryError) and f"registry list {LINE}" in str(done.exception)
    done = exported("models:/other@champion")
    assert isinstance(done.exception, ConfigError) and "names no scenario" in str(done.exception)
