"""params.yaml is checked whole before anything runs; every message names the key."""

import copy
import datetime
import os

import pytest
import yaml

from llbnad.errors import ConfigError
from llbnad.utils.yaml_files import read_yaml
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY

CONTENT = yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def load(tmp_path, *changes):
    """params.yaml of the repository with (dotted key, value) changes; `...` removes the key."""
    content = copy.deepcopy(CONTENT)
    for key, value in changes:
        *parents, last = key.split("|")
        node = content
        for parent in parents:
            node = node[parent]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_params(path)


def test_the_repository_s_own_file_is_right_and_frozen(tmp_path):
    params = load(tmp_path)
    assert {"elpv_mono_a00", "elpv_mono_a20"} <= set(params.scenarios)
    with pytest.raises(ValueError, match="frozen"):
        params.sub_models = (0,)


A20 = "scenarios|elpv_mono_a20|"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (A20 + "colour", 1, "params.yaml: scenarios.elpv_mono_a20.colour is an unknown key"),
        (A20 + "dataset", "moon", "scenarios.elpv_mono_a20.dataset is 'moon'; known:"),
        (A20 + "noise|ratio", 1.2, "scenarios.elpv_mono_a20.noise.ratio: Input should be less than 1 (got 1.2)"),
        (A20 + "noise|ratio", 0.5, "ratio 0.5 is above max_ratio 0.4: raise max_ratio"),
        (A20 + "selection", {"policy": "fraction", "keep": 20}, "keep must be in (0, 1], got 20: did you mean 0.2?"),
        (A20 + "selection", {"policy": "magic"}, "selection"),
        (A20 + "detector|memory_size", 0, "detector.memory_size"),
        (A20 + "aggregation", "median", "aggregation"),
        (A20 + "encoder|name", "resnet", "encoder.name: unknown encoder 'resnet'; there are ['efficientnet_lite2'"),
        (A20 + "encoder|layers", [3, 2], "layers must be ascending"),
        (A20 + "partition", "halves", "scenarios.elpv_mono_a20.partition"),
        (A20 + "seed", ..., "scenarios.elpv_mono_a20.seed is missing (usual value: 0)"),
        (A20 + "detector|neighbours", ..., "detector.neighbours is missing (usual value: 1)"),
        ("sub_models", [0, 2], "sub_models must count 0, 1, 2 … up to the last stage, got [0, 2]"),
        (A20 + "subsets", 1, "aggregation oof_mean needs at least 2 subsets, got 1"),
        (A20 + "subsets", "many", "subsets: expected auto or a whole number from 1 on (got 'many')"),
        ("datasets|elpv_mono|source", "ftp", "datasets.elpv_mono"),
        ("runtime|threads", -1, "runtime.threads"),
        ("scenarios|bad-name", {}, "scenarios.bad-name"),
        ("arrival|cron", "at two", "arrival.cron: expected minute hour day month weekday"),
        ("arrival|cron", "99 2 * * *", "arrival.cron: minute is '99'; expected 0 to 59"),
        ("arrival|cron", "0 2 31 13 *", "arrival.cron: month is '13'; expected 1 to 12"),
        *(
            ("arrival|cron", f"{field} 0 1 * *", f"arrival.cron: minute is '{field}'; expected 0 to 59")
            for field in ("*/0", "*/100", "5-1", "0-70", "a", "5,", "-1", "1--2", "1/2/3", "mon")
        ),
        ("arrival|cron", "0 0 31 2,4 *", "arrival.cron: day is '31', which no month '2,4' has"),
        *(
            ("datasets|elpv_mono|root", root, f"datasets.elpv_mono.root is '{root}', which holds what the pipeline")
            for root in ("/", ".", "..", "../..", "data", "data/", "./data/own/..")
        ),
        ("datasets|elpv_mono|root", "~/images", "root is '~/images', and `~` is not read: write the whole path"),
        ("datasets|" + "a" * 101, {"source": "elpv", "root": "x", "category": "mono"}, "digits and '_', at most 100"),
        ("arrival|stable_seconds", float("inf"), "arrival.stable_seconds"),
        ("arrival|min_new_images", 0, "arrival.min_new_images"),
        ("runtime", ..., "runtime is missing"),
        *(
            (A20 + "subsets", value, "scenarios.elpv_mono_a20.subsets: expected auto or a whole number from 1 on")
            for value in (True, 2.0, "5", [2], {"a": 1}, None, 0)
        ),
        (
            A20 + "subsets",
            10**400,
            "subsets: expected a whole number up to 9,007,199,254,740,992, got one of 1329 bits",
        ),
        (A20 + "seed", True, "scenarios.elpv_mono_a20.seed: expected a number, without quotes (got True)"),
        (A20 + "rounds", "2", "scenarios.elpv_mono_a20.rounds: expected a number, without quotes (got '2')"),
        (A20 + "encoder|layers", [True, 2], "encoder.layers: expected whole numbers (got [True, 2])"),
        (A20 + "detector|neighbours", True, "detector.neighbours: expected a number, without quotes"),
        (A20 + "selection|evidence", float("inf"), "selection.evidence: expected a finite number, got inf"),
        (A20 + "patch_rejection", float("nan"), "patch_rejection: expected a finite number, got nan"),
        (
            A20 + "review",
            datetime.date(2026, 1, 1),
            "review: expected text, a number, a list or a mapping, got the date",
        ),
        (A20 + "seed", datetime.datetime(2026, 1, 1), "seed: expected text, a number, a list or a mapping, got the"),
        (A20 + "review", "a\0b", "review: expected text without line breaks and control characters, got 'a\\x00b'"),
        (A20 + "review", "", "scenarios.elpv_mono_a20.review: String should have at least 1 character"),
        (A20 + "comparators", {"none"}, "comparators: expected text, a number, a list or a mapping, got the set"),
        ("datasets|elpv_mono|root", b"x", "datasets.elpv_mono.root: expected text, a number"),
        ("arrival|stable_seconds", 1e12, "arrival.stable_seconds: Input should be less than or equal to 604800"),
        ("arrival|stable_seconds", True, "arrival.stable_seconds: expected a number, without quotes"),
        ("runtime|threads", 2**31, "runtime.threads: Input should be less than or equal to 1024"),
        ("scenarios|a\nb", {}, "the key 'a\\nb' of scenarios: expected text without line breaks"),
        ("promotion|max_missed", True, "promotion.max_missed: expected a number, without quotes"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, key, value, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, (key, value))
    assert message in str(caught.value)
    assert all(line.startswith("params.yaml: ") for line in str(caught.value).splitlines())


def test_a_number_too_long_to_print_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text(
        (REPOSITORY / "params.yaml").read_text().replace("seed: 0", "seed: 0xf" + "f" * 5000)
    )
    with pytest.raises(
        ConfigError, match=r"defaults\.seed: expected a whole number up to [\d,]+, got one of 20004 bits"
    ):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", ["a-0", "a.0", "a b", "_a", "ä"])
def test_names_that_dvc_would_misread_are_refused(tmp_path, name):
    scenario = CONTENT["scenarios"]["elpv_mono_a00"]
    with pytest.raises(ConfigError, match="DVC joins names with '-' and splits them at"):
        load(tmp_path, (f"scenarios|{name}", scenario))


def test_unknown_scenario_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match="unknown scenario 'x'; "):
        load(tmp_path).scenario("x")


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match="run from the repository's root"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_params(tmp_path / "params.yaml")


def test_a_policy_of_logarithms_refuses_scores_without_them(tmp_path):
    with pytest.raises(ConfigError, match="policy mixture looks for two groups in the logarithm of scores"):
        load(tmp_path, (A20 + "selection", {"policy": "mixture", "evidence": 0}), (A20 + "aggregation", "rank_mean"))


def exploding(levels):
    """Aliases that multiply each other: nine to the power of `levels` values in a few hundred bytes."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key a is there twice"),
        ("a: {b: 1, b: 2}", "the key b is there twice"),
        ("a: &a [*a]", "contains itself"),
        (exploding(12), "its anchors multiply each other"),
        ("a: \x07b", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("[" * 3000, "not valid YAML|nested too deeply"),
        ("a: 2026-13-45", "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_would_hang_or_pass_unnoticed_is_one_error(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)


def test_what_is_no_text_file_is_said(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("größe: 1".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in {
        "latin.yaml": "not UTF-8",
        "pipe.yaml": "is no file",
        ".": "is no file",
        "x": "not found",
    }.items():
        with pytest.raises(ConfigError, match=message):
            read_yaml(tmp_path / name)


def test_merged_keys_may_be_overridden_and_merged_again(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, y: 3}\nd: {<<: [*a, *b], z: 4}\n")
    found = read_yaml(path)
    assert found == yaml.safe_load(path.read_text())
    assert found["c"] == {"x": 2, "y": 3}


@pytest.mark.parametrize(
    "cron",
    ["0 2 * * *", "*/15 0-5,22 1,15 jan-MAR mon-fri", "59 23 31 1 7", "0 0 31 2 1", "0 0 29 2 *", "5/10 * * * 0"],
)
def test_times_that_come_are_taken(tmp_path, cron):
    assert load(tmp_path, ("arrival|cron", cron)).arrival.cron == cron
