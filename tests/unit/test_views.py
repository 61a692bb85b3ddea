"""Views of an image (squeeze, letterbox, tiles) and the region of interest, from the canvas to the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from llbnad.cli import app
from llbnad.config import EncoderConfig, RegionConfig, parse
from llbnad.data.canvas import Canvas, off_canvas
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.detectors.base import draw_patches, image_scores, judge
from llbnad.detectors.padim import Padim, PadimConfig
from llbnad.detectors.patchcore.detector import Patchcore, PatchcoreConfig
from llbnad.detectors.softpatch.detector import Softpatch, SoftpatchConfig
from llbnad.encoders import recipe
from llbnad.encoders.base import Encoded
from llbnad.encoders.tiled import TiledEncoder
from llbnad.errors import ConfigError, DataError
from llbnad.features.batch import Batch
from llbnad.features.image_vectors import image_vectors
from llbnad.model.model import Model
from llbnad.options import view_options
from llbnad.purification.patches import trusted_patches
from llbnad.scenario import make_settings

LETTERBOX = Canvas(EncoderConfig(input_size=64, view="letterbox"), 16)
SQUEEZE = Canvas(EncoderConfig(input_size=64), 1)
GRID = 8


class Means:
    """An encoder without context: each cell of 8 and of 16 pixels becomes the mean of its pixels."""

    def encode(self, images: np.ndarray) -> Encoded:
        pixels = torch.from_numpy(images).float().permute(0, 3, 1, 2)
        layers = [torch.nn.functional.avg_pool2d(pixels, side).half().numpy() for side in (8, 16)]
        return Encoded(layers, [np.arange(len(images), dtype=np.float16)[:, None, None]])


class Given:
    """Features that a test gives: the same frame for all images."""

    def __init__(self, maps: torch.Tensor, frame) -> None:
        self.maps, self.frame = maps, frame

    def batches(self, image_ids, description):
        for image_id in image_ids:
            yield Batch((image_id,), (self.maps[int(image_id)][None],), frames=[self.frame])


def with_region(**settings) -> RegionOfInterest:
    return RegionOfInterest(RegionConfig(**settings))


LEFT_HALF = with_region(polygon=((0, 0), (0.5, 0), (0.5, 1), (0, 1)))


def test_squeeze_keeps_what_caches_and_models_are_named_by():
    """The digest of the same settings before there were views."""
    content = EncoderConfig().model_dump(mode="json")
    assert content == {"name": "efficientnet_lite2", "input_size": 224, "layers": [2, 3]}
    assert EncoderConfig(tiles=(5, 5)).model_dump(mode="json") == content  # unused, so it decides nothing
    assert recipe(EncoderConfig()).fingerprint == "d54b5fb40df1da348c376bfb1fdce1bf0890dda12cd502ae88c1fc4027783ba0"
    others = [EncoderConfig(view="letterbox"), EncoderConfig(view="tiles"), EncoderConfig(view="tiles", overlap=0)]
    assert len({recipe(one).fingerprint for one in [EncoderConfig(), *others]}) == 4
    for one in others:
        assert EncoderConfig.model_validate(one.model_dump(mode="json")) == one
    assert "region" not in make_settings({}, "test").model_dump(mode="json")


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_tiles_without_context_equal_the_whole_image(overlap):
    """Every cell is where it was, and blending equal features changes nothing."""
    canvas = Canvas(EncoderConfig(input_size=64, view="tiles", tiles=(2, 3), overlap=overlap), 16)
    width, height = canvas.size
    assert (width, height) == (64 + 2 * (64 - canvas.overlap), 64 + (64 - canvas.overlap))
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    found, whole = TiledEncoder(Means(), canvas).encode(images), Means().encode(images)
    for tiled, expected in zip(found.maps, whole.maps, strict=True):
        assert tiled.dtype == np.float16
        assert np.allclose(tiled, expected, atol=0.2)  # one step of float16 near 255
    assert np.allclose(found.prefixes[0], 2.5)  # the mean over six tiles


def test_blending_passes_linearly_from_one_tile_to_the_next():
    class Numbers:
        def encode(self, images):
            one = np.broadcast_to(np.arange(2, dtype=np.float16)[:, None, None, None], (2, 1, 8, 8))
            return Encoded([one], [])

    canvas = Canvas(EncoderConfig(input_size=64, view="tiles", tiles=(1, 2), overlap=0.25), 16)
    (found,) = TiledEncoder(Numbers(), canvas).encode(np.zeros((1, 64, 112, 3), np.uint8)).maps
    assert found[0, 0, 3].tolist() == [0] * 6 + [0.25, 0.75] + [1] * 6


def test_a_network_sees_the_same_on_tiles_away_from_their_edges(tmp_path):
    """A convolution of reach 1 on 8-pixel cells: only cells beside a tile's edge may differ."""

    class Blurred(Means):
        def encode(self, images):
            maps = [torch.from_numpy(layer).float() for layer in super().encode(images).maps]
            return Encoded([torch.nn.functional.avg_pool2d(m, 3, 1, 1).half().numpy() for m in maps], [])

    canvas = Canvas(EncoderConfig(input_size=128, view="tiles", tiles=(1, 2), overlap=0), 16)
    images = np.random.default_rng(1).integers(0, 256, (1, 128, 256, 3), np.uint8)
    found, whole = TiledEncoder(Blurred(), canvas).encode(images), Blurred().encode(images)
    inner = [*range(15), *range(17, 32)]
    assert np.allclose(found.maps[0][..., inner], whole.maps[0][..., inner], atol=0.2)
    assert not np.allclose(found.maps[0], whole.maps[0], atol=0.2)


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (30, 90), (517, 333)])
def test_a_letterbox_keeps_the_aspect_ratio_and_the_way_back(size):
    """A spot of the image is at the same place after the way to the canvas and back."""
    frame = LETTERBOX.frame(size)
    left, top, right, bottom = frame.box
    assert max(right - left, bottom - top) == 64
    assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.03)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    x, y = int(size[0] * 0.7), int(size[1] * 0.4)
    pixels[y - size[1] // 10 : y + size[1] // 10, x - size[0] // 10 : x + size[0] // 10] = 255
    canvas, seen = LETTERBOX.load(pixels)
    assert canvas.shape == (64, 64, 3) and seen == size
    back = frame.off_canvas(canvas[..., 0].astype(np.float32))
    assert back.shape == (bottom - top, right - left)
    rows, columns = np.nonzero(back > 127)
    assert (columns.mean() + 0.5) / back.shape[1] == pytest.approx(0.7, abs=0.03)
    assert (rows.mean() + 0.5) / back.shape[0] == pytest.approx(0.4, abs=0.03)


def test_the_margin_repeats_the_edge_and_does_not_count():
    canvas, _ = LETTERBOX.load(np.full((20, 40, 3), 77, np.uint8))
    assert (canvas == 77).all()
    inside = LETTERBOX.frame((40, 20)).inside((GRID, GRID))
    assert inside[2:6].all() and inside.sum() == 4 * GRID  # 32 of 64 rows of pixels
    manifest = pd.DataFrame({"image_id": ["a"], "path": ["a.png"], "width": [40], "height": [20]})
    assert LETTERBOX.frames(manifest, None) == {"a": LETTERBOX.frame((40, 20))}
    assert SQUEEZE.frames(manifest, None) == {}


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ({"polygon": ((0, 0), (0.5, 0), (0.5, 1), (0, 1))}, (slice(None), slice(0, 4))),
        ({"polygon": ((0, 0), (160, 0), (160, 80), (0, 80)), "unit": "pixels"}, (slice(0, 4), slice(0, 4))),
        ({"border": 0.25}, (slice(2, 6), slice(1, 7))),  # of the shorter side, on all four sides
        ({"border": 40, "unit": "pixels"}, (slice(2, 6), slice(1, 7))),
    ],
)
def test_a_region_is_drawn_on_the_patches_of_an_image(settings, inside):
    expected = np.zeros((GRID, GRID), bool)
    expected[inside] = True
    found = SQUEEZE.frame((320, 160), with_region(**settings)).inside((GRID, GRID))
    assert np.array_equal(found, expected)


def test_a_mask_file_is_laid_over_images_of_any_size(tmp_path):
    mask = np.zeros((100, 300), np.uint8)
    mask[:, 150:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    region = RegionOfInterest.read(RegionConfig(mask=str(tmp_path / "mask.png")))
    assert region is not None
    assert SQUEEZE.frame((48, 32), region).inside((GRID, GRID)).sum(axis=0).tolist() == [0] * 4 + [GRID] * 4
    found = LETTERBOX.frame((40, 20), region).inside((GRID, GRID))  # region and margin together
    assert found[2:6, 4:].all() and found.sum() == 16


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mask": "a.png", "polygon": [[0, 0], [1, 0], [1, 1]]}, "both given"),
        ({"polygon": [[0, 0], [1, 0]]}, "2 corners"),
        ({"polygon": [[0, 0], [400, 0], [400, 300]]}, "unit: pixels"),
        ({"border": 0.5}, "leaves nothing"),
        ({"borders": 3}, "unknown key"),
    ],
)
def test_an_impossible_region_is_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        parse(RegionConfig, settings, "region")


def test_a_region_without_anything_inside_names_the_image(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.png does not exist"):
        RegionOfInterest.read(RegionConfig(mask=str(tmp_path / "gone.png")))
    Image.new("L", (8, 8)).save(tmp_path / "dark.png")
    with pytest.raises(ConfigError, match="dark everywhere"):
        RegionOfInterest.read(RegionConfig(mask=str(tmp_path / "dark.png")))
    elsewhere = with_region(polygon=((300, 300), (400, 300), (300, 400)), unit="pixels")
    frame = SQUEEZE.frame((64, 64), elsewhere)
    batch = Batch(("abc",), (torch.zeros(1, 2, GRID, GRID),), frames=[frame])
    with pytest.raises(DataError, match=r"image abc: nothing of an image of 64 × 64 pixels is in the region"):
        batch.inside_on((GRID, GRID))
    manifest = pd.DataFrame({"image_id": ["abc"], "path": ["small.png"], "width": [64], "height": [64]})
    with pytest.raises(DataError, match=r"small.png: nothing of an image"):
        SQUEEZE.frames(manifest, elsewhere)
    assert RegionOfInterest.read(None) is None and RegionOfInterest.read(RegionConfig()) is None


def test_the_score_is_of_the_patches_inside_and_the_rest_is_zero():
    maps = torch.arange(64.0).reshape(1, 8, 8)
    inside = torch.tensor(SQUEEZE.frame((64, 64), LEFT_HALF).inside((GRID, GRID)))[None]
    assert image_scores(maps, inside).tolist() == [59]  # the largest in the first four columns
    assert image_scores(maps, torch.ones_like(inside)).tolist() == image_scores(maps).tolist() == [63]


DETECTORS = {
    "patchcore": lambda: Patchcore(PatchcoreConfig(memory_size=100)),
    "padim": lambda: Padim(PadimConfig(dimensions=3)),
    "softpatch": lambda: Softpatch(SoftpatchConfig(memory_size=100)),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_outside_is_neither_learnt_nor_scored(name):
    """Whatever lies two patches and more outside changes no tensor, no score and no map."""
    maps = torch.rand(12, 3, GRID, GRID, generator=torch.Generator().manual_seed(0)) + 1
    painted = maps.clone()
    painted[::2, :, :, 5:] = 50 * torch.rand(6, 3, GRID, 3)  # one patch further than the 3 × 3 means reach
    frame = SQUEEZE.frame((64, 64), LEFT_HALF)
    ids, found = [str(number) for number in range(12)], []
    for given in (maps, painted):
        detector, source = DETECTORS[name](), Given(given, frame)
        detector.fit(source, ids, 0)
        judged = [judge(detector, batch) for batch in source.batches(ids, "score")]
        found.append((detector.tensors(), judged))
        assert all((patches[:, :, 4:] == 0).all() and (patches[:, :, :4] > 0).any() for patches, _ in judged)
    (before, scores), (after, others) = found
    left = slice(0, 4)
    for key, tensor in before.items():
        same = after[key]
        if name == "padim" and key != "channels":  # one entry per position: of those that are scored
            tensor, same = (t.reshape(GRID, GRID, -1)[:, left] for t in (tensor, same))
        assert torch.equal(tensor, same), key
    for (one, score), (other, other_score) in zip(scores, others, strict=True):
        assert torch.equal(one, other) and torch.equal(score, other_score)
    vectors = [image_vectors(Given(given, frame), ids, 1, "drift") for given in (maps, painted)]
    assert np.allclose(*vectors, atol=1e-6)  # what drift compares


def test_padim_has_a_finite_gaussian_where_no_image_reaches():
    maps = torch.rand(4, 3, GRID, GRID, generator=torch.Generator().manual_seed(0))
    detector = Padim(PadimConfig(dimensions=3))
    detector.fit(Given(maps, LETTERBOX.frame((40, 20))), ["0", "1", "2", "3"], 0)
    assert all(tensor.isfinite().all() for tensor in detector.tensors().values())
    taller = Given(maps, LETTERBOX.frame((64, 64)))
    assert all(judge(detector, batch)[0].isfinite().all() for batch in taller.batches(["0"], "score"))


def test_trusted_patches_and_the_region_go_together():
    frame = SQUEEZE.frame((64, 64), LEFT_HALF)
    batch = Batch(("a",), (torch.zeros(1, 2, GRID, GRID),), frames=[frame])
    top = torch.zeros(1, GRID, GRID, dtype=torch.bool)
    top[:, :2] = True
    assert batch.trusting(top).trusted_on((GRID, GRID)).sum() == 2 * 4
    assert len(draw_patches(Given(torch.rand(1, 2, GRID, GRID), frame), ["0"], 1000, 0, "test")) == 32


def test_the_share_of_patches_that_is_not_learnt_is_of_those_inside():
    frame = SQUEEZE.frame((64, 64), LEFT_HALF)
    values = np.random.default_rng(0).random((4, GRID, GRID)).astype(np.float32)
    values[:, :, 4:] = 0  # as `judge` leaves them
    maps = {str(number): one for number, one in enumerate(values)}
    trusted = trusted_patches(maps, ["0", "1", "2"], 1.0, dict.fromkeys(maps, frame))
    dropped = 1 - np.mean([mask[:, :4] for mask in trusted.values()])
    assert dropped == pytest.approx(0.25, abs=0.08)


def test_a_model_keeps_view_and_region(tmp_path):
    detector = Patchcore(PatchcoreConfig())
    detector.restore({"memory": torch.rand(5, 168)})
    region = RegionOfInterest(RegionConfig(mask="any.png", border=0.1), np.eye(40, dtype=bool))
    view = EncoderConfig(view="tiles", tiles=(1, 2))
    model = Model(view, PatchcoreConfig(), detector, region=region)
    model.save(tmp_path / "model.safetensors")
    found = Model.load(tmp_path / "model.safetensors")
    assert found.encoder == view and found.region is not None and found.region.equals(region)
    assert not found.region.equals(RegionOfInterest(region.config, np.ones((40, 40), bool)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((None, "2by3", None, None, None), "rows x columns"),
        (("letterbox", "2x3", None, None, None), "--view tiles"),
    ],
)
def test_odd_options_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        view_options(*options)


def test_a_detector_that_reads_whole_images_is_refused():
    with pytest.raises(ConfigError, match="reads whole images"):
        make_settings({"detector": "anomalib", "encoder": {"view": "letterbox"}}, "test")


def test_two_commands_from_wide_images_to_results(tmp_path):
    """The left half of every image is a clock that never shows the same; only what lies right of it counts."""
    random = np.random.default_rng(0)
    for number in range(10):
        pixels = np.full((96, 192, 3), 120, np.uint8) + random.integers(0, 9, (96, 192, 3), np.uint8)
        pixels[:, :64] = random.integers(0, 256, (96, 64, 3), np.uint8)
        if number == 9:
            pixels[32:64, 150:182] = 255
        folder = tmp_path / ("new" if number == 9 else "images")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    region = tmp_path / "region.json"
    region.write_text(json.dumps({"polygon": [[64, 0], [192, 0], [192, 96], [64, 96]], "unit": "pixels"}))
    arguments = [str(tmp_path / "images"), "--no-comparators", "--subsets", "2", "--tiles", "1x2", "--overlap", "0"]
    small = ["encoder.input_size=64", "detector.memory_size=300", "rounds=1", "calibration.folds=2", "suspects=2"]
    arguments += [part for setting in small for part in ("--set", setting)]
    run = CliRunner().invoke(app, ["run", *arguments, "--region", str(region), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert "view tiles: images of 192 × 96 px are seen as 128 × 64 px (67%), in 1 × 2 tiles of 64 px" in run.output
    model = Model.load(tmp_path / "out" / "model.safetensors")
    assert model.encoder.tiles == (1, 2) and model.region is not None
    arguments = [str(tmp_path / "out" / "model.safetensors"), str(tmp_path / "new"), "--out", str(tmp_path / "scored")]
    scored = CliRunner().invoke(app, ["predict", *arguments])
    assert scored.exit_code == 0, scored.output
    table = pd.read_csv(tmp_path / "scored" / "predictions.csv")
    assert table["score"][0] > table["threshold"][0]
    with Image.open(Path(tmp_path / "scored" / table["heatmap"][0])) as picture:
        assert picture.size == (192, 96)
    lines = (tmp_path / "scored" / "regions.jsonl").read_text().splitlines()
    assert table["regions"][0] == len(lines) > 0
    x, y, width, height = json.loads(lines[0])["box"]  # in pixels of the image: around the white square's middle
    assert x < 166 < x + width and y < 48 < y + height and x >= 52 and width * height < 0.5 * 192 * 96


def test_maps_of_a_letterbox_are_given_over_the_image():
    frame = LETTERBOX.frame((40, 20))
    maps = {"a": np.arange(64, dtype=np.float32).reshape(8, 8), "b": np.ones((8, 8), np.float32)}
    found = off_canvas(maps, {"a": frame})
    assert np.array_equal(found["a"], maps["a"][2:6]) and found["b"] is maps["b"]
