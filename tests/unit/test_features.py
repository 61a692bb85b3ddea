"""The feature cache: features equal the encoder's output, whatever was cached, by whom and beside which image."""

import concurrent.futures
import multiprocessing
import multiprocessing.spawn
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from llbnad.config import EncoderConfig
from llbnad.data.images import load_square
from llbnad.detectors import base
from llbnad.detectors.base import embed
from llbnad.encoders import create_encoder, recipe
from llbnad.errors import ConfigError, DataError, IdentityError, ImageChangedError, ImageGoneError
from llbnad.features.batch import Batch, fresh_batch
from llbnad.features.derived import DerivedMemory
from llbnad.features.store import FeatureStore
from llbnad.scenario import ScenarioSettings
from tests.warm import programs

CONFIG = EncoderConfig(input_size=64)


def store(cache, few_cells, **settings):
    manifest, root = few_cells
    return FeatureStore(cache, CONFIG, manifest, root, **settings)


@pytest.fixture(scope="module")
def few_features(tmp_path_factory, few_cells):
    """The cache of `few_cells`. A test looks at it, or changes a copy."""
    folder = tmp_path_factory.mktemp("features")
    store(folder, few_cells).ensure(few_cells[0]["image_id"].tolist())
    return folder


def collect(features, ids):
    batches = list(features.batches(ids, "test"))
    return [torch.cat(layer) for layer in zip(*(batch.maps for batch in batches), strict=True)]


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


def test_cached_equals_uncached(tmp_path, few_cells):
    manifest, root = few_cells
    ids = manifest["image_id"].tolist()
    cached = store(tmp_path, few_cells)
    first, second = collect(cached, ids), collect(store(tmp_path, few_cells), ids)
    images = np.stack([load_square(root / path, 64) for path in manifest["path"]])
    direct = create_encoder(CONFIG, "cpu").encode(images).maps
    for cold, warm, layer in zip(first, second, direct, strict=True):
        assert torch.equal(cold, warm)
        assert np.array_equal(cold.numpy(), layer.astype(np.float32))


def test_a_fresh_image_gives_the_patches_of_a_cached_one_to_the_last_bit(tmp_path, few_cells):
    manifest, root = few_cells
    ids = manifest["image_id"].tolist()
    (cached,) = store(tmp_path, few_cells, batch_size=len(ids)).batches(ids, "test")
    images = np.stack([load_square(root / path, 64) for path in manifest["path"]])
    fresh = fresh_batch(tuple(ids), images, create_encoder(CONFIG, "cpu"), "cpu")
    assert torch.equal(embed(fresh.maps), embed(cached.maps))


def test_values_do_not_depend_on_batch_mates(few_cells):
    manifest, root = few_cells
    images = np.stack([load_square(root / path, 64) for path in manifest["path"]])
    encoder = create_encoder(CONFIG, "cpu")
    together = encoder.encode(images).maps
    alone = encoder.encode(images[7:8]).maps
    reversed_order = encoder.encode(images[::-1]).maps
    for layer, one, backwards in zip(together, alone, reversed_order, strict=True):
        assert np.array_equal(layer[7], one[0])
        assert np.array_equal(layer, backwards[::-1])


def test_derived_values_are_made_once_and_are_the_same_to_the_last_bit(few_features, few_cells, monkeypatch):
    ids = few_cells[0]["image_id"].tolist()
    remembers = store(few_features, few_cells, batch_size=4)
    made = []
    monkeypatch.setattr(base, "embed", lambda maps, vectors: made.append(len(maps[0])) or embed(maps, vectors))
    first = [base.patch_vectors(batch) for batch in remembers.batches(ids, "test")]
    assert sum(made) == len(ids)
    again = [base.patch_vectors(batch) for batch in remembers.batches(ids[::-1], "test")]  # in other batches
    assert sum(made) == len(ids)
    assert torch.equal(torch.cat(first), torch.cat(again).flip(0))
    monkeypatch.setattr("llbnad.features.store.DERIVED_BYTES", 0)
    forgets = store(few_features, few_cells, batch_size=3)
    anew = [base.patch_vectors(batch) for _ in range(2) for batch in forgets.batches(ids, "test")]
    assert sum(made) == 3 * len(ids) and torch.equal(torch.cat(anew), torch.cat(first + first))


def test_a_full_memory_of_derived_values_takes_no_more():
    values = torch.arange(12.0).reshape(3, 4)  # rows of 16 bytes
    memory = DerivedMemory(40)
    memory.keep("a", ["x", "y"], values[:2])
    memory.keep("a", ["y", "z"], values[1:])
    assert memory.bytes == 32 and torch.equal(memory.get("a", ["y", "x"]), values[[1, 0]])
    assert memory.get("a", ["x", "z"]) is None and memory.get("b", ["x"]) is None


def test_images_alone_encode_nothing(tmp_path, few_cells):
    manifest, root = few_cells
    ids = manifest["image_id"].tolist()
    batches = list(store(tmp_path, few_cells).batches(ids, "test"))
    images = torch.cat([batch.images for batch in batches])  # (N, 3, H, W)
    expected = np.stack([load_square(root / path, 64) for path in manifest["path"]])
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)
    assert tree(tmp_path) == {}
    assert batches[0].maps[0].shape[0] == len(batches[0].image_ids)
    assert len(tree(tmp_path)) == len(ids)  # the first features asked for have all of them encoded
    with pytest.raises(DataError, match="without their images"):
        _ = Batch(("a",), ()).images


def test_a_batch_in_a_log_line_encodes_nothing(tmp_path, few_cells):
    ids = few_cells[0]["image_id"].tolist()
    (batch,) = store(tmp_path, few_cells, batch_size=len(ids)).batches(ids, "test")
    assert ids[0] in repr(batch) and ids[0] in f"{batch.trusting(torch.ones(len(ids), 8, 8, dtype=torch.bool))}"
    assert tree(tmp_path) == {}


def test_every_image_is_encoded_once(tmp_path, few_cells):
    ids = few_cells[0]["image_id"].tolist()
    assert store(tmp_path, few_cells).ensure(ids[:5]) == 5
    assert store(tmp_path, few_cells).ensure(ids) == 15
    assert store(tmp_path, few_cells).ensure(ids) == 0


def test_cache_bytes_do_not_depend_on_order_or_batch_size(tmp_path, few_cells):
    ids = few_cells[0]["image_id"].tolist()
    store(tmp_path / "a", few_cells).ensure(ids)
    other = store(tmp_path / "b", few_cells, batch_size=3)
    other.ensure(ids[10:])
    other.ensure(ids[::-1])
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_cache_bytes_do_not_depend_on_threads(tmp_path, few_cells):
    ids = few_cells[0]["image_id"].tolist()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            store(tmp_path / str(threads), few_cells).ensure(ids)
    finally:
        torch.set_num_threads(before)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def fill(arguments):
    cache, few_cells = arguments
    return store(cache, few_cells).ensure(few_cells[0]["image_id"].tolist())


def test_two_processes_may_fill_it_at_once(tmp_path, few_cells):
    context, usual = multiprocessing.get_context("spawn"), multiprocessing.spawn.get_executable()
    context.set_executable(str(Path(programs()) / "python"))
    try:
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            list(pool.map(fill, [(tmp_path / "both", few_cells)] * 2))
    finally:
        context.set_executable(usual)
    fill((tmp_path / "one", few_cells))
    assert tree(tmp_path / "both") == tree(tmp_path / "one")
    assert not [path for path in (tmp_path / "both").rglob("*") if path.suffix == ".tmp"]


def flipped(place):
    """Change one bit at `place` of an entry's bytes."""

    def change(path, other):
        content = bytearray(path.read_bytes())
        content[place(content)] ^= 0x40
        path.write_bytes(content)

    return change


def of_an_older_release(path, other):
    save_file(load_file(path), path)


def of_another_encoder(path, other):
    with safe_open(path, "np") as stored:
        told = stored.metadata()["llbnad"].replace(path.parents[1].name, "f" * 16)
    save_file(load_file(path), path, {"llbnad": told})


DAMAGES = {
    "cut off": lambda path, other: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path, other: path.write_bytes(b""),
    "a value": flipped(lambda content: len(content) - 5),
    "the name of a layer": flipped(lambda content: content.find(b'"layer') + 2),
    "the digest": flipped(lambda content: content.find(b"digest") + 12),
    "of another image": lambda path, other: path.write_bytes(other.read_bytes()),
    "of another encoder": of_another_encoder,
    "of an older release": of_an_older_release,
    "of another type": lambda path, other: save_file(
        {name: values.astype(np.float32) for name, values in load_file(path).items()}, path
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_entry_is_encoded_again_and_counted(tmp_path, few_cells, few_features, damage, caplog):
    ids = few_cells[0]["image_id"].tolist()
    shutil.copytree(few_features, tmp_path / "cache")
    whole, before = collect(store(few_features, few_cells), ids), tree(few_features)
    assert caplog.text == ""
    victim, other = (next((tmp_path / "cache").rglob(f"{ids[number]}.safetensors")) for number in (3, 4))
    damage(victim, other)
    assert tree(tmp_path / "cache") != before
    again = collect(store(tmp_path / "cache", few_cells), ids)
    assert all(torch.equal(one, two) for one, two in zip(whole, again, strict=True))
    assert "1 damaged cache entries were made again" in caplog.text
    assert tree(tmp_path / "cache") == before
    damage(victim, other)
    assert [store(tmp_path / "cache", few_cells).ensure(ids) for _ in range(2)] == [1, 0]
    assert tree(tmp_path / "cache") == before


def test_a_disk_that_damages_what_is_written_is_an_error(tmp_path, few_cells, monkeypatch):
    ids = few_cells[0]["image_id"].tolist()
    monkeypatch.setattr("safetensors.numpy.save", lambda tensors, metadata: b"?" * 50)
    with pytest.raises(DataError, match=r"safetensors is damaged .*, though it was just written: check the disk"):
        collect(store(tmp_path, few_cells), ids)


def test_changed_image_is_not_taken_for_the_old_one(tmp_path, cells):
    from llbnad.config import ImageFolderDataset
    from llbnad.data.sources import read_source

    copy = tmp_path / "images"
    copy.mkdir()
    first, second = sorted((cells / "good").iterdir())[:2]
    (copy / "a.png").write_bytes(first.read_bytes())
    scan, root = read_source(ImageFolderDataset(root=str(copy), category="c"), copy)
    (copy / "a.png").write_bytes(second.read_bytes())
    with pytest.raises(ImageChangedError, match="bytes changed; restore the file, or read"):
        FeatureStore(tmp_path / "cache", CONFIG, scan.manifest, root).ensure(scan.manifest["image_id"].tolist())
    (copy / "a.png").unlink()
    with pytest.raises(ImageGoneError, match="is gone: restore the file, or read"):
        FeatureStore(tmp_path / "cache", CONFIG, scan.manifest, root).ensure(scan.manifest["image_id"].tolist())
    assert not tree(tmp_path)


def test_unknown_image_is_an_error(tmp_path, few_cells):
    with pytest.raises(IdentityError, match="not in the manifest"):
        store(tmp_path, few_cells).ensure(["f" * 64])


def test_fingerprint_changes_with_all_that_changes_values():
    settings = [{}, {"input_size": 96}, {"layers": (3,)}]
    assert len({recipe(EncoderConfig(**change)).fingerprint for change in settings}) == 3


def test_a_device_of_another_kind_has_a_cache_of_its_own(tmp_path, few_cells):
    folders = [store(tmp_path, few_cells, device=device).folder for device in ("cpu", "cuda", "cuda:1")]
    assert folders[0] != folders[1] == folders[2]


def test_wrong_encoder_settings():
    with pytest.raises(ValueError, match="unknown encoder 'resnet'; there are"):
        ScenarioSettings(encoder={"name": "resnet"})
    with pytest.raises(ConfigError, match="unknown encoder 'resnet'; there are"):
        recipe(EncoderConfig(name="resnet"))
    with pytest.raises(ConfigError, match="stages 0 … 4"):
        recipe(EncoderConfig(layers=(5,)))
