"""Model files with any damage: none is loaded, and each is refused in words."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from llbnad.model.content import content_digest
from llbnad.model.model import Model
from tests.unit.properties import damaged, everything, examples, refused

KEYS = ["format", "encoder", "encoder_fingerprint", "detector", "digest", "threshold"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True, repr=False)
class Parts:
    whole: bytes
    tensors: dict[str, torch.Tensor]
    content: dict[str, Any]

    def __repr__(self) -> str:  # hypothesis shows all of it otherwise
        return "parts of a model file"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def parts(model_files):
    with safe_open(model_files["padim"], "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dict
        return Parts(model_files["padim"].read_bytes(), tensors, json.loads(stored.metadata()["llbnad"]))


@examples(150)
@given(data=st.data())
def test_no_damaged_file_is_loaded(parts, place, data):
    whole = parts.whole
    header = whole[: 8 + int.from_bytes(whole[:8], "little")]  # half of the damage goes into its few bytes
    if data.draw(st.booleans()):
        content = data.draw(damaged(header)) + whole[len(header) :]
    else:
        content = data.draw(damaged(whole))
    path = place / "damaged.safetensors"
    path.write_bytes(content)
    before = everything(place)
    assert refused(Model.load, path) or content == whole
    assert everything(place) == before


@examples(100)
@given(data=st.data())
def test_any_description_is_refused_in_words(parts, place, data):
    """With a digest that fits: whoever made the file believed in it."""
    tensors, content = parts.tensors, parts.content
    path = place / "made.safetensors"
    told = dict(content)
    for key in data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)):
        value = data.draw(VALUES)
        if isinstance(told.get(key), dict) and told[key] and data.draw(st.booleans()):
            told[key] = {**told[key], data.draw(st.sampled_from(sorted(told[key]))): value}
        else:
            told[key] = value
    if told["digest"] == content["digest"]:
        told["digest"] = content_digest(told, tensors)
    save_file(tensors, path, {"llbnad": json.dumps(told)})
    refused(Model.load, path)


@examples(30)
@given(text=VALUES.map(json.dumps) | st.text(max_size=30))
def test_any_metadata_is_refused_in_words(parts, place, text):
    path = place / "made.safetensors"
    save_file(parts.tensors, path, {"llbnad": text})
    assert refused(Model.load, path)
