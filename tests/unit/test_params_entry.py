"""A new production line in params.yaml: exactly its lines are added, whatever is around them."""

import difflib

import pytest

from llbnad.errors import ConfigError
from orchestration.line.params_entry import add_line
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY


@pytest.fixture
def repository(tmp_path):
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return tmp_path


def added(before, after):
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert not [line for line in lines if line[0] == "-"], lines
    return [line[2:] for line in lines]


@pytest.mark.parametrize("line", ["bottle", "4711", "null", "yes", "1_000"])
def test_a_new_line_adds_its_own_lines_and_nothing_else(repository, line):
    key = line if line == "bottle" else f"'{line}'"  # else YAML takes it for a number, nothing or a truth value
    path = repository / "params.yaml"
    before = path.read_text()
    assert add_line(repository, line)
    root = f"{{source: image_folder, root: data/raw/{line}/arrived, category: {key}}}"
    assert added(before, path.read_text()) == [
        f"  {key}: {root}",
        f"  {key}:",
        "    <<: *defaults",
        f"    dataset: {key}",
        "    noise: {protocol: as_is}",
        f"    review: data/review/{line}.csv",
        "    comparators: [none]",
        "    sensitivity: {images: 12, sizes: auto, contrasts: [0.2]}",
    ]
    assert (repository / "data" / "review" / f"{line}.csv").read_text() == "image_id,verdict\n"
    scenario = load_params(path).scenario(line)
    assert scenario.dataset == line and scenario.comparators == ("none",)
    assert scenario.detector == load_params(path).defaults.detector


def test_registered_twice_is_registered_once(repository):
    add_line(repository, "bottle")
    before = (repository / "params.yaml").read_bytes()
    assert not add_line(repository, "bottle")
    assert (repository / "params.yaml").read_bytes() == before


def test_what_people_changed_stays(repository):
    """A line that somebody gave its own settings keeps them; a missing half is added."""
    path = repository / "params.yaml"
    add_line(repository, "bottle")
    changed = path.read_text().replace("comparators: [none]\n", "comparators: [none, random] # ours\n", 1)
    changed = changed.replace("  bottle: {source: image_folder", "  bottle:   {source: image_folder")
    path.write_text(changed)
    add_line(repository, "cap")
    text = path.read_text()
    assert "comparators: [none, random] # ours" in text
    assert load_params(path).scenario("bottle").comparators == ("none", "random")


@pytest.mark.parametrize(
    ("line", "owner"),
    [("elpv_mono", "the dataset with root constraints"), ("elpv_mono_a20", "the scenario of dataset elpv_mono")],
)
def test_the_name_of_something_else_is_refused(repository, line, owner):
    before = (repository / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match=f"gives the name {line} to {owner}"):
        add_line(repository, line)
    assert (repository / "params.yaml").read_bytes() == before
