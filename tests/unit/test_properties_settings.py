"""Settings files of any content, and the repository's own with anything in any place: used, or refused in words."""

import copy
import datetime
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llbnad.config import parse
from llbnad.options import merged
from llbnad.scenario import Scenario, ScenarioSettings
from llbnad.utils.yaml_files import read_yaml
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY
from tests.unit.properties import damaged, everything, examples, refused

OWN = (REPOSITORY / "params.yaml").read_bytes()
CONTENT = yaml.safe_load(OWN)
del CONTENT["scenarios"]["elpv_mono_a00"]
WORDS = ["auto", "patchcore", "padim", "mad", "as_is", "elpv", "none", "a:b", "..", "/", "0 2 * * *", "* * 31 2 *", ""]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=12),
    st.sampled_from(WORDS), st.dates(), st.datetimes(min_value=datetime.datetime(1, 1, 2)), st.binary(max_size=5),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=8,
)
SOURCES = [
    "&a [*a]", "<<: *x", "{<<: 1}", "? [a]\n: b", "!!python/object:os.system x", "a: 2020-99-99", "a: 1_000:99",
    "[" * 300, "a: .inf", "%YAML 9", "--- 1\n--- 2", "a: !!binary x", "a: !!int x", "a: !!timestamp x", "\tb",
    "a: b: c", "!!set {a, b}", "!!omap [a]", "? ? ?", "&" * 5, "a: &b\nc: *b", "- - - - {}", "a: 0x_", "a: 0b",
    "a: 9:99:99.9",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("settings")


def read_in_every_way(path):
    before = everything(path.parent)
    refused(read_yaml, path)
    refused(load_params, path)
    refused(merged, path, {"seed": 1, "detector.name": "padim"}, [])
    assert everything(path.parent) == before


@examples(120)
@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass"))
    | st.lists(st.sampled_from(SOURCES), max_size=3).map(lambda parts: "\n".join(parts).encode())
    | damaged(OWN)
)
def test_any_bytes_are_settings_or_refused_in_words(place, content):
    path = place / "params.yaml"
    path.write_bytes(content)
    read_in_every_way(path)


def put(content, draw, value):
    """Put a value, or a new key, at a drawn place of nested settings."""
    node = content
    while True:
        key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
        key = draw(SCALARS.filter(lambda one: not (isinstance(one, float) and math.isnan(one))))
    node[key] = value


@examples(100)
@given(data=st.data())
def test_any_value_at_any_place_of_params_yaml(place, data):
    content = copy.deepcopy(CONTENT)
    for _ in range(data.draw(st.integers(1, 2))):
        put(content, data.draw, data.draw(VALUES))
    path = place / "params.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    refused(load_params, path)


@examples(100)
@given(content=st.dictionaries(st.sampled_from([*Scenario.model_fields]) | SCALARS, VALUES, max_size=4) | VALUES)
def test_any_scenario(content):
    refused(parse, Scenario, content, "here")


@examples(100)
@given(
    key=st.sampled_from([*ScenarioSettings.model_fields, "detector.memory_size", "encoder.layers", "a.b.c", "", "."]),
    text=st.text(max_size=12) | st.sampled_from(SOURCES) | VALUES.map(yaml.safe_dump),
)
def test_any_assignment(key, text):
    def read():
        parse(ScenarioSettings, merged(None, {}, [f"{key}={text}"]), "llbnad run")

    refused(read)
