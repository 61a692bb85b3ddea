"""The shared feature cache: an image meets the encoder on one machine only, and nothing depends on that place."""

import logging
import os

import pytest

from llbnad.config import EncoderConfig
from llbnad.errors import ConfigError
from llbnad.features.shared import AT_ONCE, SharedCache
from llbnad.features.store import FeatureStore
from tests.unit.test_features import tree


def machine(folder, few_cells, shared, monkeypatch=None):
    """Return the store of a machine with a cache of its own; given `monkeypatch`, it has no encoder."""
    manifest, root = few_cells
    store = FeatureStore(folder, EncoderConfig(input_size=64), manifest, root, shared=shared)
    if monkeypatch is not None:
        monkeypatch.setattr("llbnad.features.store.create_encoder", lambda *_: pytest.fail("encoded once more"))
    return store


@pytest.fixture(params=["folder", "file://folder", "memory://bucket"])
def address(request, tmp_path):
    """A shared place: a plain path, the same as an address, and a bucket in memory."""
    yield request.param.replace("folder", str(tmp_path / "shared"))
    import fsspec

    fsspec.filesystem("memory").store.clear()


def test_a_second_machine_fetches_what_the_first_encoded(tmp_path, few_cells, address, monkeypatch):
    first = machine(tmp_path / "first", few_cells, address)
    assert first.ensure(first.image_ids) == len(first.image_ids)
    second = machine(tmp_path / "second", few_cells, address, monkeypatch)
    assert second.ensure(second.image_ids) == 0
    assert tree(tmp_path / "first") == tree(tmp_path / "second") != {}


def test_batches_fetch_as_well(tmp_path, few_cells, address, monkeypatch):
    first = machine(tmp_path / "first", few_cells, address)
    first.ensure(first.image_ids)
    second = machine(tmp_path / "second", few_cells, address, monkeypatch)
    assert sum(len(batch.maps[0]) for batch in second.batches(second.image_ids, "test")) == len(first.image_ids)


def test_only_what_is_missing_there_is_encoded(tmp_path, few_cells):
    shared = str(tmp_path / "shared")
    first = machine(tmp_path / "first", few_cells, shared)
    first.ensure(first.image_ids[:7])
    second = machine(tmp_path / "second", few_cells, shared)
    assert second.ensure(second.image_ids) == len(second.image_ids) - 7
    assert len(tree(tmp_path / "shared")) == len(second.image_ids)


def test_a_damaged_or_foreign_entry_is_made_again_here_and_there(tmp_path, few_cells, caplog):
    first = machine(tmp_path / "first", few_cells, str(tmp_path / "shared"))
    first.ensure(first.image_ids)
    entries = sorted((tmp_path / "shared").rglob("*.safetensors"))
    whole = tree(tmp_path / "shared")
    entries[0].write_bytes(entries[0].read_bytes()[:-40])
    entries[1].write_bytes(entries[2].read_bytes())  # another image's
    second = machine(tmp_path / "second", few_cells, str(tmp_path / "shared"))
    assert second.ensure(second.image_ids) == 2
    assert "2 entries of the shared cache are damaged" in caplog.text
    assert tree(tmp_path / "shared") == tree(tmp_path / "second") == whole


@pytest.mark.skipif(os.name != "posix", reason="a file in the place of a folder is another error elsewhere")
def test_a_place_that_does_not_answer_costs_one_warning(tmp_path, few_cells, caplog):
    (tmp_path / "shared").touch()  # a file: nothing can be read or written below it
    store = machine(tmp_path / "cache", few_cells, str(tmp_path / "shared"))
    with caplog.at_level(logging.WARNING):
        assert store.ensure(store.image_ids) == len(store.image_ids)
    told = [record for record in caplog.records if "features are encoded here" in record.message]
    assert len(told) == 1
    assert len(tree(tmp_path / "cache")) == len(store.image_ids)


@pytest.mark.parametrize("address", ["nowhere://bucket/features", "s4://bucket"])
def test_an_unknown_address_is_refused_before_anything_is_encoded(tmp_path, few_cells, address):
    with pytest.raises(ConfigError, match=r"runtime\.feature_cache is .* fsspec knows"):
        machine(tmp_path, few_cells, address)


def test_many_entries_come_in_several_readings(tmp_path):
    cache = SharedCache(str(tmp_path))
    entries = {f"{number:02d}/{number}.safetensors": bytes([number]) for number in range(2 * AT_ONCE + 1)}
    cache.write(entries)
    assert dict(cache.read([*entries, "99/none.safetensors"])) == entries
