"""Pictures: equal content gives equal bytes; heat shows where the map is high."""

import contextlib
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from llbnad.evaluation import heat_scale as scales
from llbnad.evaluation.figures import Tile, contact_sheet, curves
from llbnad.evaluation.heat_scale import HeatScale, heat_scale, lay_heat, overlay
from llbnad.evaluation.histogram import bar_edges, score_histogram

SCALE = HeatScale(0, 0.5, 1, "threshold")


def draw(kind, path):
    rng = np.random.default_rng(0)
    scores = rng.random(60)
    if kind == "histogram":
        score_histogram(scores, scores > 0.8, [("largest score kept", 0.7)], path, "title")
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
    shown = overlay(image, heat, SCALE)
    assert np.array_equal(shown[40:, 40:], image[40:, 40:])
    assert shown[2, 2, 0] > shown[2, 2, 2] + 50


def test_a_large_picture_is_coloured_in_little_memory():
    """4 megapixels: coloured at once they took 80 bytes a pixel."""
    picture = Image.new("RGB", (2500, 1600), (100, 100, 100))
    heat = np.zeros((28, 28), np.float32)
    heat[:14] = 1
    overlay(np.zeros((8, 8, 3), np.uint8), heat, SCALE)  # what is imported and made once does not count
    tracemalloc.start()
    lay_heat(picture, heat, SCALE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 << 20
    assert picture.getpixel((1200, 1500)) == (100, 100, 100) != picture.getpixel((1200, 100))


@pytest.mark.parametrize("size", [(700, 1300), (1, 3000), (513, 512), (3, 5)])
def test_blocks_of_a_picture_fit_together(size, monkeypatch):
    rng = np.random.default_rng(0)
    image, heat = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random((28, 20), dtype=np.float32)
    in_blocks = overlay(image, heat, HeatScale(0.1, 0.5, 0.9, "")).astype(int)
    monkeypatch.setattr(scales, "BLOCK", 10_000)
    at_once = overlay(image, heat, HeatScale(0.1, 0.5, 0.9, ""))
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
    assert (green[:, 1] < width / 2).all() and (green[:, 0] < 0.35 * height).all()  # the upper picture's upper part
    on_image = hot[hot[:, 0] < 0.77 * height]  # the bar is below
    assert (on_image[:, 1] < width / 2).all() and (on_image[:, 0] > 0.45 * height).all() and len(on_image) < len(hot)
    assert (on_image[:, 0] < 0.7 * height).all()


def shown(value, scale):
    """The colour of a grey image under a map of one value."""
    return overlay(np.full((4, 4, 3), 128, np.uint8), np.full((2, 2), value, np.float32), scale)[1, 1].astype(int)


@pytest.mark.parametrize("limit", [0.02, 3.0, 500.0])
def test_colours_are_calm_below_the_limit_and_heat_begins_there(limit):
    scale = heat_scale(limit, [])
    assert (shown(0.5 * limit, scale) == 128).all() and (shown(-limit, scale) == 128).all()
    red, _, blue = shown(0.98 * limit, scale)
    assert blue > red  # calm
    for value in (1.05, 1.2, 1.5, 9):
        red, _, blue = shown(value * limit, scale)
        assert red > blue + 50
    assert (shown(1.5 * limit, scale) == shown(9 * limit, scale)).all()
    assert f"threshold ({limit:.4g})" in scale.caption()


def test_a_set_below_its_limit_looks_clean_and_without_a_limit_the_bar_says_so():
    rng = np.random.default_rng(0)
    maps = [rng.random((8, 8), dtype=np.float32) for _ in range(3)]
    clean = overlay(np.full((64, 64, 3), 128, np.uint8), maps[0], heat_scale(1.01, maps)).astype(int)
    assert (clean[..., 0] <= clean[..., 2]).all()
    relative = heat_scale(None, maps)
    assert relative.low < relative.limit < relative.high and "for want of a threshold" in relative.caption()
    assert "in units of its detector's threshold: calm below 1," in heat_scale(1.0, maps, scales.OF_EACH).caption()
    below_zero = heat_scale(-2.0, [one - 3 for one in maps])  # as of a log-likelihood
    assert below_zero.low < below_zero.limit == -2 < below_zero.high
    assert heat_scale(None, []).low == 0


def texts(draw_it, monkeypatch):
    """All texts of a picture that a function draws."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found = []
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *_, **__: found.extend(t.get_text() for t in self.findobj(Text))
    )
    monkeypatch.setattr("llbnad.evaluation.figures.replacing", lambda path: contextlib.nullcontext(path))
    draw_it()
    return found


@pytest.mark.parametrize(("stretch", "labelled"), [(1, True), (1, False), (100, False)])
def test_axes_are_labelled_and_say_where_they_are_logarithmic(stretch, labelled, monkeypatch, tmp_path):
    scores = np.linspace(1, 2, 50)
    scores[-2:] *= stretch
    anomalous = scores > 1.9 if labelled else None
    lines = [("threshold", 1.8), ("stands apart from", 1.9)]
    found = texts(
        lambda: score_histogram(scores, anomalous, lines, tmp_path / "a.png", "title", (1.7, 1.85)), monkeypatch
    )
    assert ("anomaly score, logarithmic" if stretch > 1 else "anomaly score") in found
    assert ("number of images" if labelled else "number of images, logarithmic") in found
    assert {"threshold (1.8)", "stands apart from (1.9)", "unsure, 1.7 to 1.85"} <= set(found)
    parts = {"normal", "anomalous"} if labelled else {"no label, up to the line", "no label, above it"}
    assert all(any(one.startswith(f"{part} (") for one in found) for part in parts)


@pytest.mark.parametrize("length", [10, 30, 50])
def test_no_legend_is_cut_off(length, tmp_path):
    scores, lines = np.linspace(1, 2, 50), [("c" * length, 1.8), ("e" * length, 1.9)]
    score_histogram(scores, None, lines, tmp_path / "a.png", "title")
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    below = pixels[-pixels.shape[0] // 4 :]
    assert below.min() < 128 and (below[:, [0, 1, -2, -1]] == 255).all()


def test_tiles_bear_the_camera_s_name_and_the_sheet_its_bar(monkeypatch, tmp_path):
    image, heat = np.zeros((8, 8, 3), np.uint8), np.ones((2, 2), np.float32)
    stored = f"line/ab/{'ab' * 32}-part 7-.png"
    tiles = [
        Tile(image, heat, "kept · 1", "#000000", name=name) for name in ("a/b/0001.png", stored, "x" * 50 + ".png")
    ]
    found = texts(lambda: contact_sheet(tiles, tmp_path / "a.png", "sheet", heat_scale(2, [], "cut")), monkeypatch)
    assert {"0001.png", "part 7.png", "calm below the cut (2), heat above", "≤ 1", "≥ 3"} <= set(found)
    (long,) = [one for one in found if "…" in one]
    assert len(long) == 28 and long.endswith("x.png")


def test_what_all_names_have_in_common_stands_in_the_title_once(monkeypatch, tmp_path):
    image, heat = np.zeros((8, 8, 3), np.uint8), np.ones((2, 2), np.float32)
    names = [f"line$1_camera_north_shift_2_part_{number:04d}_exposure_12.png" for number in (1, 2)]
    tiles = [Tile(image, heat, "kept", "#000000", name=name) for name in names]
    found = texts(lambda: contact_sheet(tiles, tmp_path / "a.png", "sheet"), monkeypatch)
    assert {"0001", "0002"} <= set(found)
    (title,) = [one for one in found if one.startswith("sheet")]
    assert (
        title.replace("\n", " ")
        .replace(" ", "")
        .endswith("namesbeginwithline$1_camera_north_shift_2_part_andendwith_exposure_12.png")
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_bar_lies_on_one_side_of_each_line(wide, seed):
    rng = np.random.default_rng(seed)
    scores = np.exp(rng.normal(0, 2 if wide else 0.2, 150)).astype(np.float32)
    ordered = np.sort(scores)
    limits = [float(ordered[120]), float(ordered[140]) + 1e-6, 2 * float(ordered[-1])]  # a score itself, as a cut is
    edges = bar_edges(scores, limits, wide)
    places = np.digitize(scores, edges)
    assert places.min() == 1 and np.histogram(scores, edges)[0].sum() == len(scores)
    for limit in limits:
        assert not set(places[scores <= limit]) & set(places[scores > limit])
    widths = np.diff(np.log(edges) if wide else edges)
    assert (widths < 1.001 * np.median(widths)).all() and np.isclose(widths, np.median(widths)).sum() >= len(widths) - 2


def test_bars_of_few_or_equal_scores_are_drawn():
    for scores in (np.array([]), np.array([2.0]), np.full(9, 2.0)):
        assert np.histogram(scores, bar_edges(scores, [2.0, 3.0], False))[0].sum() == len(scores)
