"""How pixels are read: ranges above 8 bits, pages, formats and shapes. One table per kind: input, expected."""

import io
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image, TiffImagePlugin
from safetensors import safe_open
from safetensors.numpy import save_file
from typer.testing import CliRunner

from llbnad import cli, load
from llbnad.config import ElpvDataset, EncoderConfig, Files, ImageFolderDataset, RealIadDataset, parse
from llbnad.data.decode import IMAGE_SUFFIXES
from llbnad.data.images import load_rgb, load_square
from llbnad.data.manifest import SCHEMA, common_window, normalise, window_of, windows_of, write_manifest
from llbnad.data.sources import read_source
from llbnad.errors import ConfigError, DataError
from llbnad.features.store import FeatureStore
from llbnad.inference.image_files import find_images
from llbnad.inference.predict import Predictor
from llbnad.model.content import opened
from llbnad.model.model import Model
from llbnad.monitoring.drift import image_numbers
from orchestration.line.examine import examine
from orchestration.pipeline.features import allow_images
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY

COUNT = 6


def part(seed=0):
    """A grey part as floats 0 … 1: a ring on a gradient with noise."""
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(seed).normal(0, 0.01, x.shape)
    return (0.5 + 0.25 * np.cos(np.hypot(x - 32, y - 32) / 6) + x / 400 + noise).clip(0, 1)


def spoilt(values, seed, *wrong):
    """Return values with one wrong pixel in every second image."""
    values = values.astype(np.float32)
    if seed % 2 == 0:
        for column, value in enumerate(wrong):
            values[0, column] = value
    return values


def unsigned(values, white):
    return (values * white).round().astype(np.uint16)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)


def scan(root, **settings):
    return read_source(ImageFolderDataset(root=str(root), category="c", **settings), root)[0]


def reasons(found):
    return dict(zip(found.rejected["path"], found.rejected["reason"], strict=True))


def as_seen(found, root):
    """The images of a scan as uint8 (H, W), by path."""
    rows = found.manifest.to_dict("records")
    return {row["path"]: np.asarray(load_rgb(root / row["path"], window_of(row)))[..., 0] for row in rows}


RANGES = {  # kind: (values of image number `seed`, window expected of the setting `auto`)
    "8 bits": (lambda seed: (part(seed) * 255).round().astype(np.uint8), None),
    "floats 0 … 1": (lambda seed: part(seed).astype(np.float32), (0, 1)),
    "floats, one hot pixel": (lambda seed: spoilt(part(seed), seed, 1.02), (0, 1)),
    "floats, one very hot pixel": (lambda seed: spoilt(part(seed), seed, 60000), (0, 1)),
    "floats, NaN and inf": (lambda seed: spoilt(part(seed), seed, np.nan, np.inf, -np.inf), (0, 1)),
    "floats that overshoot 1": (lambda seed: part(seed).astype(np.float32) * 1.4, (0, 2)),
    "floats 0 … 255": (lambda seed: part(seed).astype(np.float32) * 255, (0, 255)),
    "floats 0 … 4095": (lambda seed: spoilt(part(seed) * 4095, seed, 1e30), (0, 4095)),
    "floats 0 … 65535": (lambda seed: part(seed).astype(np.float32) * 65535, (0, 65535)),
    "floats −1 … 1": (lambda seed: part(seed).astype(np.float32) * 2 - 1, (-1, 1)),
    "noise below 0": (lambda seed: spoilt(part(seed) - 0.25, seed).clip(-0.02, 1), (0, 1)),
    "12 bits in 16": (lambda seed: unsigned(part(seed), 4095), (0, 4095)),
    "16 bits": (lambda seed: unsigned(part(seed), 65535), (0, 65535)),
    "32 bits, 0 … 255": (lambda seed: (part(seed) * 255).astype(np.int32), (0, 255)),
    "32 bits, 0 … 65535": (lambda seed: (part(seed) * 65535).astype(np.int32), (0, 65535)),
}


@pytest.mark.parametrize(("values", "window"), RANGES.values(), ids=RANGES)
def test_a_data_set_has_one_window_that_shows_its_images(tmp_path, values, window):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.tif", values(seed))
    found = scan(tmp_path)
    assert found.rejected.empty and len(found.manifest) == COUNT
    assert common_window(found.manifest) == window
    assert len(windows_of(found.manifest)) == (COUNT if window else 0)
    assert bool(found.pixel_notes) == bool(window)
    for path, grey in as_seen(found, tmp_path).items():
        middle = np.median(grey)
        assert grey.std() > 15 and 40 < middle < 240, path  # neither black nor white
        if window and window[1] - window[0] in (1, 255, 4095, 65535):
            expected = values(int(path[0])).astype(np.float64)
            expected = (np.nan_to_num(expected, posinf=window[1], neginf=window[0]) - window[0]) / window[1] * 255
            assert np.abs(grey - expected.clip(0, 255)).max() <= 1


def test_8_bit_images_keep_their_values_beside_deeper_ones(tmp_path):
    eight = (part(0) * 100).astype(np.uint8)
    save(tmp_path / "8.png", eight)
    for seed in range(1, COUNT):
        save(tmp_path / f"{seed}.png", unsigned(part(seed), 4095))
    found = scan(tmp_path)
    assert np.array_equal(as_seen(found, tmp_path)["8.png"], eight)
    windows = {row["path"]: window_of(row) for row in found.manifest.to_dict("records")}
    assert windows == {"8.png": None} | {f"{seed}.png": (0, 4095) for seed in range(1, COUNT)}


SETTINGS = {  # setting: (values shown as black and white of 12-bit images)
    "auto": (0, 4095),
    "full": (0, 65535),
    "window": (100, 3000),
}


@pytest.mark.parametrize(("setting", "window"), SETTINGS.items(), ids=SETTINGS)
def test_the_setting_decides_on_the_window_and_is_said(tmp_path, setting, window):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.png", unsigned(part(seed), 4095))
    found = scan(tmp_path, intensity=list(window) if setting == "window" else setting)
    assert common_window(found.manifest) == window
    how = "auto" if setting == "auto" else "as set"
    assert f"6 images above 8 bits are read as {window[0]:,} … {window[1]:,} ({how}; 99.8 % of" in found.pixel_notes[0]
    raw = np.asarray(Image.open(tmp_path / "0.png")).astype(float)
    expected = ((raw - window[0]) / (window[1] - window[0]) * 255).clip(0, 255)
    assert np.abs(as_seen(found, tmp_path)["0.png"] - expected).max() <= 0.51


WRONG_SETTINGS = {
    "a word": "window",
    "one number": [4095],
    "three numbers": [0, 1, 2],
    "turned round": [4095, 0],
    "equal": [1, 1],
    "texts": ["0", "4095"],
    "truth": [False, True],
    "infinite": [0, float("inf")],
    "not a number": [float("nan"), 1],
    "a mapping": {"low": 0, "high": 1},
    "nothing": None,
}


@pytest.mark.parametrize("value", WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_another_intensity_is_refused_in_one_line(value):
    content = {"source": "image_folder", "root": "x", "category": "c", "intensity": value}
    with pytest.raises(
        ConfigError, match=r"intensity: expected (auto, full, or a window \[low, high\]|a finite number)"
    ) as caught:
        parse(ImageFolderDataset, content, "params.yaml")
    assert "\n" not in str(caught.value)


def test_both_sources_of_files_have_the_settings_and_elpv_has_not():
    window = {"intensity": [0, 4095], "pages": "first"}
    for kind in (ImageFolderDataset, RealIadDataset):
        assert parse(kind, {"root": "x", "category": "c", **window}, "params.yaml").intensity == (0, 4095)
    with pytest.raises(ConfigError, match="intensity is an unknown key"):
        parse(ElpvDataset, window, "params.yaml")
    with pytest.raises(ConfigError, match="pages: Input should be 'error', 'first' or 'each'"):
        parse(Files, {"pages": "all"}, "params.yaml")


def test_images_above_the_limit_of_their_data_set_are_one_row_each(tmp_path):
    save(tmp_path / "good" / "small.png", (part(0) * 255).astype(np.uint8))
    save(tmp_path / "bad" / "marked.png", (part(1) * 255).astype(np.uint8))
    save(tmp_path / "masks" / "bad" / "marked.png", np.kron(part(1) > 0.7, np.ones((2, 2), bool)))
    save(tmp_path / "good" / "large.png", (np.tile(part(2), (1, 2)) * 255).astype(np.uint8))
    found = scan(tmp_path, max_pixels=64 * 64)
    assert sorted(found.manifest["path"]) == ["bad/marked.png", "good/small.png"]
    assert reasons(found) == {"good/large.png": "unreadable", "masks/bad/marked.png": "mask_unreadable"}
    detail = found.rejected.set_index("path")["detail"]["good/large.png"]
    assert detail.endswith("too large: 128 × 64 pixels, at most 4,096: set max_pixels to more, or make it smaller")
    assert scan(tmp_path).rejected.empty  # a data set that says nothing has the usual limit
    for value in (0, -1, 2**31, True, "many", None, 1.5):
        with pytest.raises(ConfigError, match="max_pixels: "):
            parse(ImageFolderDataset, {"root": "x", "category": "c", "max_pixels": value}, "params.yaml")


def test_a_stage_reads_images_as_large_as_their_data_set_allows(tmp_path, monkeypatch):
    params = load_params(REPOSITORY / "params.yaml")
    own = ImageFolderDataset(root="data/own/x", category="c", max_pixels=100)
    name = next(iter(params.scenarios))
    allow_images(params.model_copy(update={"datasets": {params.scenario(name).dataset: own}}), name)
    save(tmp_path / "a.png", np.zeros((10, 11), np.uint8))
    with pytest.raises(DataError, match="too large: 11 × 10 pixels, at most 100"):
        load_rgb(tmp_path / "a.png")
    allow_images(params, name)
    assert load_rgb(tmp_path / "a.png").size == (11, 10)


def test_images_that_show_nothing_are_left_out_and_the_window_is_named(tmp_path):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.tif", part(seed).astype(np.float32))
    save(tmp_path / "dark.tif", part(9).astype(np.float32) * 0.001)
    for number in (1, 2):
        save(tmp_path / f"bright{number}.tif", part(10 + number).astype(np.float32) * 1000 + 10)
    save(tmp_path / "nan.tif", np.full((64, 64), np.nan, np.float32))
    found = scan(tmp_path, intensity=[0, 1])
    expected = {"dark.tif": "constant", "bright1.tif": "clipped", "bright2.tif": "clipped", "nan.tif": "unreadable"}
    assert reasons(found) == expected
    detail = found.rejected.set_index("path")["detail"]
    assert (
        "100.0% of its values are not in the window 0 … 1: if it shows something, set intensity"
        in detail["bright2.tif"]
    )
    assert "one value in the window 0 … 1: if it shows something, set intensity" in detail["dark.tif"]
    assert "none of its values is a finite number" in detail["nan.tif"]


def test_one_image_of_another_range_is_named(tmp_path):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.tif", part(seed).astype(np.float32))
    assert len(scan(tmp_path).pixel_notes) == 1
    save(tmp_path / "wild.tif", part(10).astype(np.float32) * 16)
    notes = scan(tmp_path).pixel_notes
    assert "a few, such as wild.tif, reach" in notes[1] and "set intensity" in notes[1]
    assert reasons(scan(tmp_path, intensity=[0, 1])) == {"wild.tif": "clipped"}


def test_values_that_fill_little_of_the_window_are_said(tmp_path):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.tif", part(seed).astype(np.float32) * 2 + 293)  # kelvin
    assert "fill 0.1% of the window" in scan(tmp_path).pixel_notes[1]
    assert len(scan(tmp_path, intensity=[290, 300]).pixel_notes) == 1


def test_the_same_picture_above_and_below_8_bits_is_a_double(tmp_path):
    eight = (part(0) * 255).round().astype(np.uint8)
    eight[0] = 255
    save(tmp_path / "a.png", eight)
    save(tmp_path / "b.tif", eight.astype(np.uint16) * 257)
    assert reasons(scan(tmp_path)) == {"b.tif": "duplicate"}


def test_masks_that_nobody_named_so_do_not_widen_the_window(tmp_path):
    for seed in range(COUNT):
        save(tmp_path / f"{seed}.png", unsigned(part(seed), 4095))
    drawn = np.zeros((64, 64), np.uint16)
    drawn[10:20, 10:30] = 65535
    save(tmp_path / "drawn.png", drawn)
    found = scan(tmp_path)
    assert common_window(found.manifest) == (0, 4095) and reasons(found) == {"drawn.png": "two_valued"}


INVERTED = {  # values of a TIFF whose white is zero; all show the same picture
    "8 bits": lambda grey: grey,
    "16 bits": lambda grey: (255 - grey).astype(np.uint16) * 257,
    "floats": lambda grey: ((255 - grey) / 255).astype(np.float32),
}


@pytest.mark.parametrize("values", INVERTED.values(), ids=INVERTED)
def test_white_is_zero(tmp_path, values):
    grey = (part() * 255).round().astype(np.uint8)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    save(tmp_path / "a.tif", values(grey), tiffinfo=tags)  # Pillow turns 8 bits round when it writes, too
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
    assert np.abs(np.asarray(load_rgb(tmp_path / "a.tif"))[..., 0].astype(int) - grey).max() <= 1


def test_white_is_zero_counts_from_the_edges_of_the_window(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    save(tmp_path / "a.tif", np.array([[0, 4095]], np.uint16), tiffinfo=tags)
    assert np.asarray(load_rgb(tmp_path / "a.tif", (0, 4095)))[0, :, 0].tolist() == [255, 0]


def deep_png(values):
    """Return a PNG with 16 bits per channel, (H, W, 3) uint16, which Pillow cannot write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colour_of_16_bits_is_read_by_the_window_and_what_is_lost_is_said(tmp_path):
    for seed in range(COUNT):
        (tmp_path / f"{seed}.png").write_bytes(deep_png(np.dstack([unsigned(part(seed), 4095)] * 3)))
    found = scan(tmp_path)
    assert common_window(found.manifest) == (0, 4095)
    assert "6 colour images of 16 bits are read by their upper 8 bits" in found.pixel_notes[-1]
    grey = as_seen(found, tmp_path)["0.png"]
    assert np.abs(grey - part(0) * 255).max() < 18  # steps of 1/16
    (tmp_path / "full.png").write_bytes(deep_png(np.dstack([unsigned(part(0), 65535)] * 3)))
    assert np.abs(np.asarray(load_rgb(tmp_path / "full.png"))[..., 0] - part(0) * 255).max() <= 1


ALONE = {  # values of one image of no data set: what 0 … 1 of `part` becomes
    "16 bits": (lambda values: unsigned(values, 65535), 255),
    "12 bits in 16: the fixed rule": (lambda values: unsigned(values, 4095), 255 / 16),
    "floats with a hot pixel": (lambda values: spoilt(values, 0, 9.0, np.nan), 255),
    "floats 0 … 4095": (lambda values: (values * 4095).astype(np.float32), 255),
    "32 bits, 0 … 255": (lambda values: (values * 255).astype(np.int32), 255),
}


@pytest.mark.parametrize(("values", "white"), ALONE.values(), ids=ALONE)
def test_one_image_without_a_window(tmp_path, values, white):
    save(tmp_path / "a.tif", values(part()))
    grey = np.asarray(load_rgb(tmp_path / "a.tif"))[1:, :, 0]
    assert np.abs(grey - part()[1:] * white).max() <= 1


def pages(count, first=0):
    return [Image.fromarray((part(first + number) * 255).astype(np.uint8)) for number in range(count)]


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_pages_are_an_error_the_first_or_images_of_their_own(tmp_path, suffix):
    save(tmp_path / "one.png", pages(1, 50)[0])
    name = f"lot.{suffix}"
    shown = pages(4)
    save(
        tmp_path / name,
        shown[0],
        save_all=True,
        append_images=shown[1:],
        **({"lossless": True} if "w" in suffix else {}),
    )
    found = scan(tmp_path)
    assert found.manifest["path"].tolist() == ["one.png"] and reasons(found) == {name: "pages"}
    assert found.rejected["detail"].item() == f"{tmp_path / name} has 4 pages: set pages to first or each"
    first, each = scan(tmp_path, pages="first"), scan(tmp_path, pages="each")
    assert sorted(first.manifest["path"]) == [f"{name}#1", "one.png"]
    assert sorted(each.manifest["path"]) == [*(f"{name}#{number}" for number in range(1, 5)), "one.png"]
    assert each.rejected.empty and each.manifest["sample_id"].is_unique
    ids = each.manifest.set_index("path")["image_id"]
    assert ids[f"{name}#1"] == first.manifest.set_index("path")["image_id"][f"{name}#1"]
    assert ids.str.fullmatch("[0-9a-f]{64}").all()
    seen = as_seen(each, tmp_path)
    for number, page in enumerate(shown, start=1):
        assert np.abs(seen[f"{name}#{number}"].astype(int) - np.asarray(page)).mean() < 3


def test_what_are_no_pages(tmp_path):
    front, back = pages(2)
    save(tmp_path / "phone.mpo", front, format="MPO", save_all=True, append_images=[back])
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1  # a reduced copy
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "pyramid.tif", new=True) as file:
        front.save(file, format="TIFF")
        file.newFrame()
        front.resize((32, 32)).save(file, format="TIFF", tiffinfo=tags)
    with Image.open(tmp_path / "pyramid.tif") as image, Image.open(tmp_path / "phone.mpo") as phone:
        assert image.n_frames == phone.n_frames == 2
    for name in ("phone.mpo", "pyramid.tif"):
        assert load_rgb(tmp_path / name).size == (64, 64)
    save(tmp_path / "scan.tif#2", front, format="TIFF")  # a file's own name
    assert load_rgb(tmp_path / "scan.tif#2").size == (64, 64)


@pytest.mark.parametrize("page", ["0", "3", "999999"])
def test_a_page_that_is_not_there(tmp_path, page):
    save(tmp_path / "lot.tif", pages(2)[0], save_all=True, append_images=pages(2)[1:])
    with pytest.raises((DataError, FileNotFoundError)):
        load_rgb(tmp_path / f"lot.tif#{page}")


def test_features_of_pages_are_those_of_the_same_pictures_alone(tmp_path):
    save(tmp_path / "lot.tif", pages(3)[0], save_all=True, append_images=pages(3)[1:])
    for number, page in enumerate(pages(3), start=1):
        save(tmp_path / "alone" / f"{number}.png", page)
    config = EncoderConfig(input_size=64)

    def encoded(root, **settings):
        manifest = scan(root, **settings).manifest.sort_values("path")
        store = FeatureStore(tmp_path / "cache", config, manifest, root)
        (batch,) = store.batches(manifest["image_id"].tolist(), "test")
        return batch.maps[0].numpy()

    both = encoded(tmp_path, pages="each"), encoded(tmp_path / "alone")
    assert len(both[0]) == 3  # the pictures alone are doubles of the pages
    assert np.array_equal(*both)


def test_the_cache_never_mixes_windows(tmp_path):
    for seed in range(2):
        save(tmp_path / f"{seed}.png", unsigned(part(seed), 4095))
    save(tmp_path / "8.png", (part(3) * 255).astype(np.uint8))
    config = EncoderConfig(input_size=64)
    stores = {}
    for name, setting in {"auto": "auto", "same": [0, 4095], "other": [0, 4095.5], "full": "full"}.items():
        manifest = scan(tmp_path, intensity=setting).manifest
        stores[name] = FeatureStore(tmp_path / "cache", config, manifest, tmp_path)
    ids = stores["auto"].image_ids
    assert [stores[name].ensure(ids) for name in ("auto", "same", "other", "full")] == [3, 0, 2, 2]
    plain = {file.stem for file in (tmp_path / "cache").rglob("*.safetensors") if "@" not in file.stem}
    eight = manifest["image_id"][manifest["path"] == "8.png"].tolist()
    assert plain == set(eight)  # its address is that of earlier releases
    images = {name: next(store.batches(ids, "test")).images.numpy() for name, store in stores.items()}
    assert np.array_equal(images["auto"], images["same"]) and not np.array_equal(images["auto"], images["full"])


def test_an_image_outside_the_window_of_its_model_is_an_error_in_its_row(tmp_path, model_files):
    model = replace(Model.load(model_files["padim"]), window=(0.0, 1.0))
    save(tmp_path / "a.tif", part().astype(np.float32))
    save(tmp_path / "b.tif", unsigned(part(1), 65535))
    rows = list(Predictor(model).predict(find_images([tmp_path])))
    assert rows[0].error == "" and rows[1].score is None
    assert f"{tmp_path / 'b.tif'} shows nothing: 100.0% of its values are not in the window 0 … 1" in rows[1].error


def test_brightness_is_measured_by_the_window(tmp_path):
    save(tmp_path / "a.png", unsigned(part(), 4095))
    assert image_numbers(tmp_path / "a.png", (0, 4095))["brightness"] == pytest.approx(part().mean(), abs=0.01)
    assert image_numbers(tmp_path / "a.png")["brightness"] == pytest.approx(part().mean() / 16, abs=0.01)


def test_manifests_of_earlier_releases_have_no_window(tmp_path):
    save(tmp_path / "a.png", unsigned(part(), 65535))
    save(tmp_path / "b.png", unsigned(part(1), 65535))
    manifest = scan(tmp_path).manifest
    assert manifest.columns.tolist() == SCHEMA.names
    old = normalise(manifest.drop(columns=["black", "white"]))
    assert common_window(old) is None and old["white"].dtype == "float64"
    write_manifest(old, tmp_path / "old.parquet")
    with pytest.raises(DataError, match="2 windows of values"):
        common_window(manifest.assign(white=[1.0, 2.0]))
    assert pd.read_parquet(tmp_path / "old.parquet").columns.tolist() == SCHEMA.names


WRITTEN = ["png", "jpg", "jpe", "jfif", "tif", "bmp", "dib", "gif", "webp", "avif", "jp2", "ppm", "pgm", "pnm", "pcx",
           "sgi", "tga", "ico", "im", "dds", "qoi"]  # fmt: skip


@pytest.mark.parametrize("suffix", WRITTEN)
def test_formats_that_are_read(tmp_path, suffix):
    grey = Image.fromarray((part() * 255).astype(np.uint8))
    colour = grey if suffix == "pgm" else grey.convert("RGB")
    options = {"format": "JPEG"} if suffix == "jfif" else {"quality": 95} if suffix == "avif" else {}
    save(tmp_path / f"a.{suffix}", colour, **options)
    assert f".{suffix}" in IMAGE_SUFFIXES
    assert np.abs(np.asarray(load_rgb(tmp_path / f"a.{suffix}"))[..., 0].astype(int) - np.asarray(grey)).mean() < 4
    assert scan(tmp_path).manifest["path"].tolist() == [f"a.{suffix}"]


def test_netpbm_of_12_bits_and_floats(tmp_path):
    values = unsigned(part(), 4095)
    (tmp_path / "a.pgm").write_bytes(b"P5\n64 64\n4095\n" + values.astype(">u2").tobytes())
    (tmp_path / "b.pfm").write_bytes(b"Pf\n64 64\n-1.0\n" + part(1)[::-1].astype("<f4").tobytes())
    for name, shown in (("a.pgm", part()), ("b.pfm", part(1))):
        assert np.abs(np.asarray(load_rgb(tmp_path / name))[..., 0] - shown * 255).max() <= 1


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
REFUSED = {
    "EPS": (EPS, "is in the format EPS, which is not read: save it as PNG or TIFF"),
    "FITS": (b"SIMPLE  =                    T" + b" " * 3000, "is in the format FITS, which is not read"),
    "text": (b"no image", "is not an image that Pillow can read"),
    "short": (b"\0", "is not an image that Pillow can read"),
    "empty": (b"", "is empty (0 bytes)"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_formats_that_are_not_read_say_so(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    save(tmp_path / "b.png", pages(1)[0])
    found = scan(tmp_path)
    assert reasons(found) == {"a.png": "unreadable"}
    assert message in found.rejected["detail"].item() and str(tmp_path / "a.png") in found.rejected["detail"].item()
    with pytest.raises(DataError, match="the image given as"):
        load_rgb(content)


def lines(width, height):
    """Return a PNG of one bit whose header promises more than the file holds: only the header may be looked at."""
    content = io.BytesIO()
    Image.new("1", (8, 8)).save(content, "PNG")
    head = content.getvalue()
    size = struct.pack(">II", width, height) + head[24:29]
    return head[:16] + size + struct.pack(">I", zlib.crc32(b"IHDR" + size)) + head[33:]


SHAPES = {
    "80,000,000 × 1": (
        (80_000_000, 1),
        "is too thin: 80000000 × 1 pixels; expected a longer side of at most 100 times",
    ),
    "1 × 80,000,000": ((1, 80_000_000), "is too thin: 1 × 80000000 pixels"),
    "101 × 1": ((101, 1), "is too thin: 101 × 1 pixels"),
    "100,000 × 100,000": ((100_000, 100_000), "is too large"),
}


@pytest.mark.parametrize(("size", "message"), SHAPES.values(), ids=SHAPES)
def test_extreme_shapes_are_an_error_in_their_row(tmp_path, size, message, model_files):
    (tmp_path / "thin.png").write_bytes(lines(*size))
    save(tmp_path / "b.png", pages(1)[0])
    found = scan(tmp_path)
    assert reasons(found) == {"thin.png": "unreadable"} and message in found.rejected["detail"].item()
    rows = list(Predictor(Model.load(model_files["padim"])).predict(find_images([tmp_path])))
    assert rows[0].error == "" and message in rows[1].error


def test_100_to_1_is_read(tmp_path):
    save(tmp_path / "line.png", np.zeros((1, 100), np.uint8))
    assert load_square(tmp_path / "line.png", 8).shape == (8, 8, 3)


def test_a_run_keeps_the_window_and_prediction_reads_by_it(tmp_path):
    """12-bit images: the run says the window and the model keeps it; a new image is judged as in training."""
    for seed in range(16):
        save(tmp_path / "images" / f"{seed:02}.png", unsigned(part(seed), 4095))
    command = ["run", "--source", "image_folder", "--root", tmp_path / "images", "--category", "c", "--protocol",
               "as_is", "--detector", "padim", "--set", "encoder.input_size=64", "--set", "detector.dimensions=8",
               "--subsets", "2", "--no-comparators", "--suspects", "2", "--threads", "1", "--device",
               "cpu"]  # fmt: skip
    told = CliRunner().invoke(cli.app, [*map(str, command), "--intensity", "0,5000", "--out", str(tmp_path / "out")])
    assert told.exit_code == 0, told.output
    assert "16 images above 8 bits are read as 0 … 5,000 (as set" in told.output
    kept = pd.read_parquet(tmp_path / "out" / "kept.parquet")
    assert common_window(kept) == (0, 5000)
    recorded = json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"]
    assert recorded[0].startswith("intensity: 16 images above 8 bits are read as 0 … 5,000")
    with opened(tmp_path / "out" / "model.safetensors") as (_, content):
        assert (content["window"], content["format"]) == ([0, 5000], "llbnad model 3")
    model = Model.load(tmp_path / "out" / "model.safetensors")
    assert model.window == (0, 5000)

    save(tmp_path / "eight.png", (unsigned(part(3), 4095) * (255 / 5000)).round().astype(np.uint8))
    table = load(tmp_path / "out" / "model.safetensors", device="cpu").predict(
        [tmp_path / "images" / "03.png", tmp_path / "eight.png"]
    )
    assert table["error"].tolist() == ["", ""]
    assert table["score"][0] == pytest.approx(table["score"][1], rel=1e-3)

    save(tmp_path / "new" / "lot.tif", pages(4)[0], save_all=True, append_images=pages(4)[1:])
    save(tmp_path / "new" / "one.png", unsigned(part(30), 4095))
    loaded, lot = load(tmp_path / "out" / "model.safetensors", device="cpu"), tmp_path / "new" / "lot.tif"
    assert loaded.predict(lot, pages="each")["path"].map(str).tolist() == [f"{lot}#{number}" for number in range(1, 5)]
    table = loaded.predict([lot, lot.read_bytes()])
    assert [error.rpartition(": ")[2] for error in table["error"]] == [
        "set pages to first or each",
        "give each page alone",
    ]

    shown = ["predict", tmp_path / "out" / "model.safetensors", tmp_path / "new", "--device", "cpu", "--threads", "1"]
    for choice, rows in {"error": 2, "first": 2, "each": 5}.items():
        out = tmp_path / f"scored_{choice}"
        told = CliRunner().invoke(cli.app, [*map(str, shown), "--out", str(out), "--pages", choice])
        assert told.exit_code == 0, told.output
        table = pd.read_csv(out / "predictions.csv", keep_default_na=False)
        wrong = table["error"][table["error"] != ""].tolist()
        assert len(table) == rows and table["heatmap"].is_unique
        assert wrong == (
            [f"{tmp_path}/new/lot.tif has 4 pages: set pages to first or each"] if choice == "error" else []
        )


@pytest.mark.parametrize("window", [[1, 0], "auto", "full", [0], [0, "1"], None, "missing"])
def test_a_model_file_with_another_window_is_refused(tmp_path, model_files, window):
    replace(Model.load(model_files["padim"]), window=(0.0, 1.0)).save(tmp_path / "whole.safetensors")
    with safe_open(tmp_path / "whole.safetensors", "np") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        content = json.loads(stored.metadata()["llbnad"])
    assert content.pop("digest") and content.pop("window") == [0, 1]
    content |= {} if window == "missing" else {"window": window}
    save_file(tensors, tmp_path / "m.safetensors", {"llbnad": json.dumps(content)})
    with pytest.raises(DataError, match=r"m\.safetensors is no complete model file"):
        Model.load(tmp_path / "m.safetensors")


def test_models_of_8_bit_images_are_written_as_before(model_files):
    with opened(model_files["patchcore"]) as (_, content):
        assert "window" not in content and content["format"] == "llbnad model 2"


def test_params_of_earlier_releases_stay_valid_and_the_pipeline_takes_the_settings(tmp_path):
    text = (REPOSITORY / "params.yaml").read_text()
    entry = "  line: {source: image_folder, root: data/raw/line/arrived, category: line%s}\n"
    for settings, expected in {
        "": ("auto", "error"),
        ", intensity: [0, 4095], pages: each": ((0, 4095), "each"),
    }.items():
        (tmp_path / "params.yaml").write_text(text.replace("datasets:\n", "datasets:\n" + entry % settings))
        dataset = load_params(tmp_path / "params.yaml").dataset("line")
        assert (dataset.intensity, dataset.pages) == expected


def test_a_line_takes_in_files_of_several_pages_if_its_setting_says_what_they_are(tmp_path):
    save(tmp_path / "lot.tif", pages(2)[0], save_all=True, append_images=pages(2)[1:])
    save(tmp_path / "a.gif", pages(1)[0])
    refused = examine(tmp_path, "lot.tif")
    assert (refused.reason, refused.detail) == ("unreadable", "lot.tif has 2 pages: set pages to first or each")
    assert [examine(tmp_path, "lot.tif", choice).suffix for choice in ("first", "each")] == [".tif", ".tif"]
    assert examine(tmp_path, "a.gif").suffix == ".gif"
