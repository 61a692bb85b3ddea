"""Patch maps on disk: the maps that were written are read by image id, one map at a time."""

import numpy as np
import pytest
from safetensors.numpy import save

from llbnad.model.scores import Scores
from llbnad.purification.heat import StoredHeat, write_heat
from llbnad.purification.joint_scores import consensus
from tests.unit.test_rounds import IDS, settings, subsets_of


def test_maps_come_back_by_image_id(tmp_path):
    heat = {name: np.full((2, 3), number, np.float16) for number, name in enumerate("cab")}
    write_heat(heat, tmp_path / "maps.safetensors")
    stored = StoredHeat(tmp_path / "maps.safetensors")
    assert list(stored) == ["a", "b", "c"] and len(stored) == 3 and "d" not in stored
    assert all(np.array_equal(stored[name], heat[name]) for name in heat)
    with pytest.raises(KeyError, match="d"):
        stored["d"]


def test_a_file_of_maps_has_the_bytes_of_the_library_and_may_be_read_by_others(tmp_path):
    heat = {name: np.random.default_rng(number).random((2, 3)) > 0.5 for number, name in enumerate("cab")}
    (tmp_path / "usual").touch()
    write_heat(heat, tmp_path / "maps.safetensors")
    assert (tmp_path / "maps.safetensors").read_bytes() == save(heat)
    assert (tmp_path / "maps.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_no_map_is_an_empty_mapping(tmp_path):
    write_heat({}, tmp_path / "maps.safetensors")
    assert not StoredHeat(tmp_path / "maps.safetensors")


def test_a_consensus_of_stored_maps_is_that_of_maps_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    maps = [{name: rng.random((4, 4)).astype(np.float16) for name in IDS} for _ in range(3)]
    for number, one in enumerate(maps):
        write_heat(one, tmp_path / f"{number}.safetensors")
    stored = [StoredHeat(tmp_path / f"{number}.safetensors") for number in range(3)]
    scores = [Scores(tuple(IDS), rng.random(len(IDS), dtype=np.float32)) for _ in range(3)]
    one, other = (consensus(scores, kind, subsets_of(3), settings()) for kind in (maps, stored))
    assert one.maps.keys() == other.maps.keys()
    assert all(np.array_equal(one.maps[name], other.maps[name]) for name in IDS)
