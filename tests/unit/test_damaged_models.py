"""A model file that is not what was saved is refused in one line: it must never call a defect normal."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from llbnad.errors import DataError
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at


@pytest.fixture
def whole(model_files, tmp_path):
    model = Model.load(model_files["patchcore"])
    path = tmp_path / "whole.safetensors"
    replace(model, threshold=threshold_at(np.random.default_rng(0).random(50), 0.05)).save(path)
    return path


@pytest.fixture
def parts(whole):
    with safe_open(whole, "np") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, json.loads(stored.metadata()["llbnad"])  # noqa: SIM118


def written(tmp_path, tensors, content):
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"llbnad": json.dumps(content)})
    return path


def largest(tensors):
    return max(tensors, key=lambda name: tensors[name].size)


def test_one_flipped_bit_is_seen_wherever_it_is(whole, tmp_path):
    content = whole.read_bytes()
    assert Model.load(whole).threshold is not None
    start = 8 + int.from_bytes(content[:8], "little")  # where the tensors begin
    places = np.linspace(start, len(content) - 1, 7).astype(int)
    for place in [*places, len(content) - 5, content.index(b"target_fpr") + 14, content.index(b"memory_size") + 15]:
        damaged = bytearray(content)
        damaged[place] ^= 0x01
        (tmp_path / "bit.safetensors").write_bytes(damaged)
        with pytest.raises(DataError, match=r"bit\.safetensors"):
            Model.load(tmp_path / "bit.safetensors")


def test_values_that_are_not_finite_and_empty_tensors_are_refused_without_a_digest_too(parts, tmp_path):
    tensors, content = parts
    content = {key: value for key, value in content.items() if key != "digest"}  # as files of 0.1 are
    Model.load(written(tmp_path, tensors, content))
    name = largest(tensors)
    broken = {
        "not finite": np.full_like(tensors[name], np.nan),
        "is empty": tensors[name][:0],
    }
    for message, value in broken.items():
        with pytest.raises(DataError, match=f"tensor {name} .*{message}"):
            Model.load(written(tmp_path, {**tensors, name: value}, content))


@pytest.mark.parametrize("key", ["encoder", "detector", "encoder_fingerprint", "threshold"])
@pytest.mark.parametrize("change", ["missing", "text", "null"])
def test_a_description_that_is_not_whole_is_one_line(parts, tmp_path, key, change):
    tensors, content = parts
    told = {name: value for name, value in content.items() if name != "digest"}
    if change == "missing":
        del told[key]
    else:
        told[key] = "x" if change == "text" else None
    with pytest.raises(DataError, match=r"model\.safetensors") as caught:
        Model.load(written(tmp_path, tensors, told))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder", {"name": "efficientnet_lite2", "input_size": 10**9, "layers": [9, 2]}, "validation error"),
        ("encoder", [], "made by another release"),
        ("encoder", {"name": "os:system"}, "encoder 'os:system' cannot be used"),
        ("detector", {"name": "patchcore", "memory_size": "many", "neighbours": -1}, "validation error"),
        ("detector", {"name": "../x"}, "detector"),
        ("threshold", {"value": "nan"}, "no complete model file"),
        ("threshold", [1], "no complete model file"),
        ("window", [5, 1], "its format 'llbnad model 2' has no window"),
        ("window", "auto", "its format 'llbnad model 2' has no window"),
        ("encoder_fingerprint", 5, "other weights"),
        ("format", ["llbnad model 2"], "its format is"),
        ("digest", None, "damaged"),
        ("digest", "", "damaged"),
        ("colour", 1, "its description holds 'colour'"),
    ],
)
def test_a_description_with_another_value_is_one_line(parts, tmp_path, key, value, message):
    tensors, content = parts
    told = {name: one for name, one in content.items() if name != "digest"} | {key: value}
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        Model.load(written(tmp_path, tensors, told))
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 999, b"\xff" * 8 + b"{}", b"\x80\x04.", b"PK\x03\x04" * 99, b"<!DOCTYPE html>" * 9,
     b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n"],
    ids=["empty", "zeros", "a huge header", "pickle", "zip", "a page of an error", "a pointer of git"],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_line(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors is not a model file .*: expected the safetensors"):
        Model.load(tmp_path / "model.safetensors")


def test_a_tensor_that_is_not_there_is_one_line(parts, tmp_path):
    tensors, content = parts
    told = {name: value for name, value in content.items() if name != "digest"}
    name = largest(tensors)
    with pytest.raises(DataError, match="no complete model file"):
        Model.load(written(tmp_path, {one: value for one, value in tensors.items() if one != name}, told))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "it names no format"),
        ("[]", "it names no format"),
        ("{", "is not a model file"),
        ("[" * 9**5, "is not a"),
    ],
)
def test_a_description_of_another_kind_is_one_line(parts, tmp_path, text, message):
    save_file(parts[0], tmp_path / "model.safetensors", {"llbnad": text})
    with pytest.raises(DataError, match=message):
        Model.load(tmp_path / "model.safetensors")


def test_a_damaged_name_of_the_digest_does_not_make_it_a_file_without_one(parts, tmp_path):
    tensors, content = parts
    content["digesu"] = content.pop("digest")
    with pytest.raises(DataError, match="is damaged: its description holds 'digesu'"):
        Model.load(written(tmp_path, tensors, content))
