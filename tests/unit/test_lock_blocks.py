"""dvc.lock as blocks of text, and the union of several."""

import random

import pytest
import yaml

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.lock_blocks import (
    DisagreementError,
    blocks,
    expanded,
    joined,
    merged,
    outputs,
    paths,
    union,
)
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "dvc.lock").read_text()
PARAMS = {"datasets": {"cells": {}, "tiles": {}}, "scenarios": {"a": {}, "b": {}}, "sub_models": [0, 1]}
PIPELINE = {
    "code": {"cmd": "x"},
    "raw": {"foreach": "${datasets}"},
    "noisy": {"foreach": "${scenarios}"},
    "sub_model": {"matrix": {"scenario": "${scenarios}", "stage": "${sub_models}"}},
}
ORDER = ["code", "raw@cells", "raw@tiles", "noisy@a", "noisy@b",
         "sub_model@a-0", "sub_model@a-1", "sub_model@b-0", "sub_model@b-1"]  # fmt: skip


def entry(stage, md5="0"):
    return (
        f"  {stage}:\n    cmd: run {stage}\n    outs:\n    - path: data/{stage}\n      hash: md5\n      md5: '{md5}'\n"
    )


def test_blocks_and_back_are_the_same_bytes_with_the_stages_of_the_yaml():
    found = blocks(TEXT)
    content = yaml.safe_load(TEXT)["stages"]
    assert joined(found) == TEXT
    assert [*found] == [*content]
    for name, block in found.items():
        entries = [*content[name].get("deps", []), *content[name].get("outs", [])]
        assert paths(block) == [one["path"] for one in entries]
        assert outputs(block) == [one["path"] for one in content[name].get("outs", [])]
    assert blocks("") == {} and joined({}) == ""


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT[1:], "stages: {}\n", "<<<<<<< ours\n" + TEXT])
def test_what_dvc_did_not_write_is_refused(text):
    with pytest.raises(DisagreementError, match="is not as DVC writes it"):
        blocks(text, "dvc.lock")


def test_stages_are_expanded_in_dvc_s_order():
    assert expanded(PIPELINE, PARAMS) == ORDER
    assert lock_blocks.stages_of(REPOSITORY, "elpv_mono_a20")[:4] == [
        "code", "raw@elpv_mono", "params", "settings@elpv_mono_a20"]  # fmt: skip


def test_the_union_has_the_bytes_of_one_machine_whatever_the_order():
    whole = {stage: entry(stage) for stage in ORDER}
    slices = {
        name: {
            stage: block for stage, block in whole.items() if name in stage.partition("@")[2] or stage == "raw@cells"
        }
        | {"code": entry("code", name)}
        for name in ("a", "b")
    }
    for seed in range(5):
        names = random.Random(seed).sample(["a", "b"], 2)
        fresh = union({name: slices[name] for name in names}, left_out=["code"])
        assert "code" not in fresh
        assert joined(merged({}, {"code": whole["code"], "raw@tiles": whole["raw@tiles"], **fresh}, ORDER)) == joined(
            whole
        )


def test_known_stages_keep_their_place_and_new_ones_go_to_the_end():
    known = {stage: entry(stage, "old") for stage in ("noisy@b", "code", "gone@x")}
    fresh = {stage: entry(stage, "new") for stage in ("sub_model@b-0", "noisy@b", "raw@tiles")}
    found = merged(known, fresh, ORDER)
    assert [*found] == ["noisy@b", "code", "gone@x", "raw@tiles", "sub_model@b-0"]
    assert "'new'" in found["noisy@b"] and "'old'" in found["code"]


def test_several_updates_of_a_run_give_the_order_of_one(tmp_path):
    lock_blocks.write_blocks(tmp_path, {"noisy@b": entry("noisy@b")})
    for stage in reversed(ORDER):
        assert lock_blocks.update(tmp_path, {stage: entry(stage, "1")}, ORDER, ["noisy@b"]) == [stage]
    assert [*lock_blocks.read_blocks(tmp_path)] == ["noisy@b", *(stage for stage in ORDER if stage != "noisy@b")]
    assert lock_blocks.update(tmp_path, {"code": entry("code", "1")}, ORDER) == []


def test_slices_that_disagree_are_refused_by_name():
    slices = {"a": {"raw@cells": entry("raw@cells", "1")}, "b": {"raw@cells": entry("raw@cells", "2")}}
    with pytest.raises(DisagreementError, match=r"slices a and b disagree about stage raw@cells.*slices work a b"):
        union(slices)
    assert union(slices, left_out=["raw@cells"]) == {}
