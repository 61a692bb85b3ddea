"""Regions that `llbnad predict` writes: tables, lines, COCO and outlines agree with each other and with pictures."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from llbnad.cli import app
from llbnad.errors import DataError
from llbnad.inference.prediction import Prediction
from llbnad.inference.region_files import (
    MISSING,
    NO_REGION,
    ONLY_REGION,
    disagreement,
    pixel_threshold_of,
    region_lines,
    write_coco,
)
from llbnad.inference.request import FOLDER
from llbnad.inference.write import predict
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.regions.find import find_regions, region_level, region_mask
from llbnad.regions.outline import lay_outline
from orchestration.registry.packaging import signature
from orchestration.registry.pyfunc_model import LlbnadModel, RefusedError

REGION_COLUMNS = ["width", "height", "regions", "largest_area", "largest_box", "highest_peak", "disagreement"]


@pytest.fixture(scope="module")
def scored(model_files, few_cells, tmp_path_factory):
    """A model with a pixel threshold at which some images have regions, the files of a prediction, and its table."""
    manifest, root = few_cells
    model = Model.load(model_files["patchcore"])
    paths = [root / path for path in manifest["path"]]
    out = tmp_path_factory.mktemp("scored")
    table = predict(model, paths, out, heatmaps=False)
    assert table[REGION_COLUMNS[2:-1]].isna().all(axis=None) and not (out / "regions.jsonl").exists()
    levels = [region_level(map_of(model, path), 1 / 64) for path in paths]
    threshold = threshold_at(table["score"].to_numpy(), 0.5, unsure=False)
    pixels = PixelThreshold(threshold_at(levels, 0.4, unsure=False), 1 / 64)
    model = replace(model, threshold=threshold, pixel_threshold=pixels)
    model.save(out / "model.safetensors")
    (out / "broken.png").write_bytes(b"nothing")
    predict(model, [*paths, out / "broken.png"], out, threshold=threshold,
            pixels=model.pixel_threshold, coco=out / "coco.json")  # fmt: skip
    return out, paths, pd.read_csv(out / "predictions.csv")


def map_of(model, path):
    from llbnad.inference.predict import Predictor

    (found,) = Predictor(model).predict([path])
    return found.patch_map


def lines_of(out):
    return pd.DataFrame([json.loads(line) for line in (out / "regions.jsonl").read_text().splitlines()])


def test_the_lines_are_the_table(scored):
    out, paths, table = scored
    lines, found = lines_of(out), table.set_index("path")
    assert found.columns.tolist()[-len(REGION_COLUMNS) :] == REGION_COLUMNS
    assert table["regions"].isna().tolist() == [False] * len(paths) + [True]  # the unreadable image has no answer
    counts = lines.groupby("path").size()
    with_regions = found["regions"].fillna(0) > 0
    assert 0 < with_regions.sum() < len(paths)
    assert counts.to_dict() == found["regions"][with_regions].to_dict()
    for path, own in lines.groupby("path", sort=False):
        assert own["number"].tolist() == list(range(1, len(own) + 1))
        assert own["peak"].is_monotonic_decreasing and own["peak"].iloc[0] == pytest.approx(
            found["highest_peak"][path], abs=1e-6
        )
        largest = own.loc[own["area"].idxmax()]
        assert largest["area"] == found["largest_area"][path]
        assert largest["box"] == [int(one) for one in found["largest_box"][path].split()]
        assert (own["area"] >= own["width"] * own["height"] / 64).all()
        assert own["area_share"].tolist() == pytest.approx((own["area"] / (own["width"] * own["height"])).tolist())
    for path in paths:
        assert tuple(found.loc[str(path), ["width", "height"]]) == Image.open(path).size


def test_coco_is_whole_and_says_what_the_lines_say(scored):
    out, paths, _ = scored
    content, lines = json.loads((out / "coco.json").read_text()), lines_of(out)
    assert content["categories"] == [{"id": 1, "name": "anomaly", "supercategory": ""}]
    images = {one["id"]: one for one in content["images"]}
    assert [one["file_name"] for one in content["images"]] == [str(path) for path in paths]
    ids = [one["id"] for one in content["annotations"]]
    assert ids == list(range(1, len(lines) + 1)) and len(images) == len(paths)
    for one, line in zip(content["annotations"], lines.to_dict("records"), strict=True):
        image = images[one["image_id"]]
        assert image["file_name"] == line["path"] and one["category_id"] == 1 and one["iscrowd"] == 0
        assert (one["bbox"], one["area"], one["score"]) == (line["box"], line["area"], line["peak"])
        mask = decoded(one["segmentation"])
        assert mask.shape == (image["height"], image["width"]) and mask.sum() == one["area"]
        rows, columns = np.nonzero(mask)
        x, y, width, height = one["bbox"]
        assert (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1) == (x, y, width, height)


def decoded(segmentation):
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T


def test_coco_is_read_by_pycocotools(scored):
    pycocotools = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    found = pycocotools.COCO(str(scored[0] / "coco.json"))
    for one in found.loadAnns(found.getAnnIds()):
        assert found.annToMask(one).sum() == one["area"]


@pytest.mark.parametrize("seed", range(4))
def test_counts_of_regions_that_fill_columns_and_corners_are_exact(tmp_path, seed):
    noise = np.random.default_rng(seed).random((6, 7)).astype(np.float32)
    noise[:, 2:4] = noise[0, 0] = noise[5, 6] = 2  # whole columns, whose runs touch, and both corners
    found = find_regions(noise, (7, 6), 0.5, 1)
    write_coco({tmp_path / "a.png": Prediction(1.0, noise, size=(7, 6), regions=found)}, tmp_path / "coco.json")
    content = json.loads((tmp_path / "coco.json").read_text())
    masks = [decoded(one["segmentation"]) for one in content["annotations"]]
    assert np.array_equal(np.any(masks, axis=0), noise > 0.5)
    assert all(min(one["segmentation"]["counts"][1:]) > 0 for one in content["annotations"])


def test_labels_and_regions_that_disagree_are_named(scored):
    _, _, table = scored
    region = find_regions(np.eye(3, dtype=np.float32), (3, 3), 0.5, 1)
    kinds = [(label, regions) for label in ("defect", "normal", "unsure", "") for regions in (region, [], None)]
    assert [disagreement(Prediction(1.0, None, label, regions=regions)) for label, regions in kinds] == [
        "", NO_REGION, "", ONLY_REGION, *[""] * 8
    ]  # fmt: skip
    some = (table["regions"] > 0) & (table["label"] == "normal")
    assert (table["disagreement"] == ONLY_REGION).equals(some)


def test_a_region_is_outlined_on_its_picture():
    mask = region_mask(find_regions(np.pad(np.ones((30, 40), np.float32), 10), (60, 50), 0.5, 1), (60, 50))
    picture = Image.new("RGB", (60, 50), "#404040")
    lay_outline(picture, mask)
    green = (np.asarray(picture) == (0, 255, 0)).all(axis=2)
    assert not green[~mask].any() and green.sum() == 2 * (30 + 40) - 4
    untouched = Image.new("RGB", (60, 50))
    lay_outline(untouched, np.zeros((50, 60), bool))
    assert not np.asarray(untouched).any()


def test_min_area_drops_regions_and_one_below_the_calibrated_area_is_said(scored, tmp_path):
    out, paths, table = scored
    model = Model.load(out / "model.safetensors")
    largest = int(table["largest_area"].max())
    few = predict(model, paths, tmp_path, heatmaps=False, pixels=model.pixel_threshold, min_area=largest)
    assert few["regions"].sum() == (table["largest_area"] == largest).sum()
    assert len(region_lines(few, model.pixel_threshold, largest)) == 1
    (*_, note) = region_lines(few, model.pixel_threshold, 1)
    assert note.startswith("note: --min-area 1 is below the 1.562% of an image") and "more than 40.00%" in note


def test_the_command_finds_regions_and_refuses_them_of_an_older_model(scored, model_files, tmp_path):
    out, paths, table = scored
    images = list(map(str, paths[:4]))
    arguments = [*images, "--out", str(tmp_path / "out"), "--coco", str(tmp_path / "coco.json")]
    done = CliRunner().invoke(app, ["predict", str(out / "model.safetensors"), *arguments])
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert found["regions"].tolist() == table["regions"][:4].tolist()
    total = int(found["regions"].sum())
    assert f"{total} regions in " in done.output and len(lines_of(tmp_path / "out")) == total
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == total
    heat_map = np.asarray(Image.open(tmp_path / "out" / found["heatmap"][found["regions"].idxmax()]))
    assert (heat_map == (0, 255, 0)).all(axis=2).any()
    more = CliRunner().invoke(app, ["predict", str(out / "model.safetensors"), *arguments, "--fpr", "0.9"])
    assert more.exit_code == 0 and len(lines_of(tmp_path / "out")) > total

    old = ["predict", str(model_files["patchcore"]), *images, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, old)
    assert done.exit_code == 0 and "no regions: the model has no pixel threshold" in done.output
    assert not (tmp_path / "out" / "regions.jsonl").exists()  # none of the call before
    for option in (["--min-area", "9"], ["--coco", str(tmp_path / "other.json")]):
        refused = CliRunner().invoke(app, [*old, *option])
        assert isinstance(refused.exception, DataError) and "train it again" in str(refused.exception)
    assert not (tmp_path / "other.json").exists()


def test_the_served_model_answers_with_the_regions_of_the_command(scored, monkeypatch):
    out, paths, _ = scored
    monkeypatch.setenv(FOLDER, str(paths[0].parent))
    served = LlbnadModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(out / "model.safetensors")}))
    rows = [{"path": path.name} for path in paths] + [{"bytes": "no image"}]
    answers = served.predict(None, pd.DataFrame(rows))
    assert list(answers.columns) == ["score", "label", "heat_map", "regions", "error"]
    assert answers["regions"].iloc[-1] is None and answers["error"].iloc[-1]
    lines = lines_of(out)[["path", "area", "box", "centre", "peak"]]
    expected = [lines[lines["path"] == str(path)].drop(columns="path").to_dict("records") for path in paths]
    assert json.loads(json.dumps(answers["regions"].tolist()[:-1])) == expected
    largest = int(lines["area"].max())
    few = served.predict(None, pd.DataFrame(rows), {"target_fpr": 0.0, "min_area": largest})["regions"].tolist()[:-1]
    assert few == [[one for one in regions if one["area"] >= largest] for regions in answers["regions"].tolist()[:-1]]
    with pytest.raises(RefusedError, match="min_area is -1; expected pixels from 1 on"):
        served.predict(None, pd.DataFrame(rows), {"min_area": -1})


def test_a_served_model_without_regions_refuses_an_area(model_files):
    served = LlbnadModel()
    served.load_context(SimpleNamespace(artifacts={"model": str(model_files["patchcore"])}))
    with pytest.raises(RefusedError, match=r"no pixel threshold.*train it again"):
        served.predict(None, pd.DataFrame([{"array": [[1, 2], [3, 4]]}]), {"min_area": 5})
    assert "min_area" in {one.name for one in signature().params}


def test_the_model_file_carries_the_pixel_threshold_and_older_files_have_none(scored, model_files):
    own = Model.load(scored[0] / "model.safetensors").pixel_threshold
    assert own.summary() == own.restore(own.summary(), own.levels.scores).summary() and own.levels.n == 20
    old = Model.load(model_files["patchcore"])
    assert old.pixel_threshold is None and pixel_threshold_of(old, 0.1) is None
    with pytest.raises(DataError, match=r"no pixel threshold.*train it again"):
        pixel_threshold_of(old, None, wanted=True)
    assert region_lines(pd.DataFrame(), None, None) == [f"no regions: {MISSING}"]
