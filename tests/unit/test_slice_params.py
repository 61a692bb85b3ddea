"""params.yaml of a slice: one scenario, everything else as it was."""

import pytest
import yaml

from llbnad.errors import ConfigError
from orchestration.slices.params import slice_params
from tests.conftest import REPOSITORY

WHOLE = """\
# at the head
datasets:
  # cells of the roof
  roof: {source: image_folder, root: data/own/roof, category: roof} # by hand
  wall:
    source: image_folder
    root: 'data/own/wall'
    category: "1_000"
sub_models: [0, 1]
defaults: &defaults
  seed: 0 # beside a key
  sub_model_detector: null
scenarios:
  # the first
  a: &first
    <<: *defaults
    dataset: roof
  b:
    <<: *first
    dataset: wall
    seed: 3 # b's own
# behind the scenarios
runtime:
  processes: 2
"""


def test_values_are_those_of_the_whole_and_one_scenario_is_left():
    whole = yaml.safe_load(WHOLE)
    for name, dataset in (("a", "roof"), ("b", "wall")):
        text, entry = slice_params(WHOLE, name)
        one = yaml.safe_load(text)
        assert one["scenarios"] == {name: whole["scenarios"][name]}
        assert one["datasets"] == {dataset: whole["datasets"][dataset]}
        assert entry == {"name": dataset, **whole["datasets"][dataset]}
        assert [*one] == [*whole], "sections keep their order"
        assert {key: one[key] for key in ("sub_models", "defaults", "runtime")} == {
            key: whole[key] for key in ("sub_models", "defaults", "runtime")
        }


def test_comments_anchors_and_quotes_stay():
    text, _ = slice_params(WHOLE, "a")
    for part in ("# at the head", "# by hand", "&defaults", "<<: *defaults", "# beside a key", "null"):
        assert part in text
    assert "wall" not in text
    text, _ = slice_params(WHOLE, "b")
    for part in ("'data/own/wall'", '"1_000"', "seed: 3 # b's own", "# behind the scenarios", "null"):
        assert part in text, text


def test_the_repository_s_own_loses_nothing_but_the_other_scenario():
    whole = (REPOSITORY / "params.yaml").read_text()
    text, _ = slice_params(whole, "elpv_mono_a20")
    gone = [line for line in whole.splitlines() if line not in text.splitlines()]
    assert gone == ["  elpv_mono_a00:", next(line for line in whole.splitlines() if "ratio: 0.0" in line)]


@pytest.mark.parametrize("name", ["c", "roof"])
def test_an_unknown_scenario_is_named_with_those_there_are(name):
    with pytest.raises(ConfigError, match=rf"scenarios has no '{name}'; it has \['a', 'b'\]"):
        slice_params(WHOLE, name)
