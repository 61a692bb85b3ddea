"""Pictures: equal content gives equal bytes; heat shows where the map is high."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from llbnad.evaluation import figures
from llbnad.evaluation.figures import Tile, contact_sheet, curves, heat_range, lay_heat, overlay, score_histogram


def draw(kind, path):
    rng = np.random.default_rng(0)
    scores = rng.random(60)
    if kind == "histogram":
        score_histogram(scores, scores > 0.8, ("largest score kept", 0.7), path, "title")
    elif kind == "curves":
        curves({"llbnad": (scores[:40], scores[40:] + 0.2), "none": (scores[:40], scores[40:])}, path)
    else:
        image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), bool)
        mask[4:9, 4:9] = True
        tiles = [Tile(image, rng.random((4, 4), dtype=np.float32), f"tile {k}", "#000000", mask) for k in range(7)]
        contact_sheet(tiles[: 0 if kind == "empty sheet" else 7], path, "sheet")


@pytest.mark.parametrize("kind", ["histogram", "curves", "sheet", "empty sheet"])
def test_equal_content_gives_equal_bytes(tmp_path, kind):
    draw(kind, tmp_path / "a.png")
    draw(kind, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 100
        assert "Software" not in picture.info


def test_overlay_colours_the_hot_corner_alone():
    image = np.full((64, 64, 3), 100, np.uint8)
    heat = np.zeros((8, 8), np.float32)
    heat[0, 0] = 1
    shown = overlay(image, heat, (0, 1))
    assert np.array_equal(shown[40:, 40:], image[40:, 40:])
    assert shown[2, 2, 0] > 150
    assert heat_range([]) == (0, 1)


def test_a_large_picture_is_coloured_in_little_memory():
    """4 megapixels: coloured at once they took 80 bytes a pixel."""
    picture = Image.new("RGB", (2500, 1600), (100, 100, 100))
    heat = np.zeros((28, 28), np.float32)
    heat[:14] = 1
    overlay(np.zeros((8, 8, 3), np.uint8), heat, (0, 1))  # what is imported and made once does not count
    tracemalloc.start()
    lay_heat(picture, heat, (0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    assert picture.getpixel((1200, 1500)) == (100, 100, 100) != picture.getpixel((1200, 100))


@pytest.mark.parametrize("size", [(700, 1300), (1, 3000), (513, 512), (3, 5)])
def test_blocks_of_a_picture_fit_together(size, monkeypatch):
    rng = np.random.default_rng(0)
    image, heat = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random((28, 20), dtype=np.float32)
    in_blocks = overlay(image, heat, (0.1, 0.9)).astype(int)
    monkeypatch.setattr(figures, "BLOCK", 10_000)
    at_once = overlay(image, heat, (0.1, 0.9))
    assert np.abs(in_blocks - at_once).max() <= 2 and (in_blocks != at_once).mean() < 1e-3


def test_outline_and_heat_lie_where_mask_and_map_say(tmp_path):
    """One white tile, its defect at the top left; a file's name as the caption, with what would be a broken formula."""
    image = np.full((64, 32, 3), 255, np.uint8)
    mask, heat = np.zeros((64, 32), bool), np.zeros((8, 4), np.float32)
    mask[4:20, 4:12], heat[:2, :1] = True, 1
    contact_sheet([Tile(image, heat, r"a$\frac$.png", "#000000", mask)], tmp_path / "sheet.png", "sheet")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    green = np.argwhere((pixels[..., 1] > 200) & (pixels[..., 0] < 120) & (pixels[..., 2] < 120))
    red, green_, blue = np.moveaxis(pixels, 2, 0)
    hot = np.argwhere((red > green_ + 30) | (red > blue + 30))
    height, width = pixels.shape[:2]
    assert len(green) and len(hot)
    assert (green[:, 1] < width / 2).all() and (green[:, 0] < height / 3).all()  # the upper picture's upper part
    assert (hot[:, 1] < width / 2).all() and (hot[:, 0] > height / 2).all() and (hot[:, 0] < 0.8 * height).all()
