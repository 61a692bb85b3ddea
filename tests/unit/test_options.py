"""The settings of `llbnad run`: options override a file, and --set overrides both."""

import json

import pytest
from typer.testing import CliRunner

from llbnad.cli import app
from llbnad.errors import ConfigError
from llbnad.options import merged
from llbnad.scenario import ScenarioSettings, make_settings

FILE = """
seed: 7
detector: {name: patchcore, memory_size: 512}
encoder: efficientnet_lite2
calibration: {folds: 5}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "settings.yaml").write_text(FILE)
    return tmp_path / "settings.yaml"


def settings(config=None, assignments=(), **options):
    named = {key.replace("__", "."): value for key, value in options.items()}
    return make_settings(merged(config, named, assignments), "test")


def test_nothing_said_is_the_defaults():
    assert settings() == settings(seed=None, detector__name=None) == ScenarioSettings()


def test_options_override_the_file_and_set_has_the_last_word(file):
    assert settings(file).seed == 7
    assert settings(file, seed=2).seed == 2
    found = settings(file, ["seed=3", "detector.neighbours=2", "encoder.input_size=64"], seed=2)
    assert (found.seed, found.detector.memory_size, found.detector.neighbours) == (3, 512, 2)
    assert found.encoder.input_size == 64 and found.encoder.name == "efficientnet_lite2"
    both = settings(file, calibration__target_fpr=0.05).calibration
    assert (both.folds, both.target_fpr) == (5, 0.05)


def test_another_class_takes_nothing_of_the_one_in_the_file(file):
    assert settings(file, detector__name="patchcore").detector.memory_size == 512
    assert settings(file, detector__name="padim").detector.name == "padim"
    assert settings(file, selection__policy="fraction", selection__keep=0.3).selection.keep == 0.3
    assert settings(file, ["sub_model_detector.name=padim"]).stage_1_detector.name == "padim"


def test_a_file_may_be_json_and_hold_all_settings(tmp_path):
    wanted = settings(None, ["rounds=2", "sub_model_detector={name: dfr, steps: 30}"], detector__name="softpatch")
    (tmp_path / "all.json").write_text(json.dumps(wanted.model_dump(mode="json")))
    assert settings(tmp_path / "all.json") == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--config .*gone.yaml not found: expected a YAML file of settings"),
        ("seed: [", "gone.yaml is not valid YAML"),
        ("- 1", "gone.yaml holds list; expected a mapping"),
        ("colour: 1", "llbnad run: colour is an unknown key"),
        ("calibration: 3", "--calibration.target_fpr: calibration holds a value, not settings"),
    ],
)
def test_a_wrong_file_is_said(tmp_path, content, message):
    path = tmp_path / "gone.yaml"
    if content is not None:
        path.write_text(content)
    arguments = ["run", "--out", str(tmp_path / "out"), "--config", str(path), "--target-fpr", "0.1"]
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
