"""Scoring a folder: a picture depends on its image alone, and scores are written even if pictures fail."""

import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest

from llbnad.errors import ConfigError
from llbnad.evaluation.figures import ANOMALOUS_COLOUR, NORMAL_COLOUR, UNKNOWN_COLOUR
from llbnad.evaluation.report import _outcome
from llbnad.inference.image_files import refuse_own_pictures
from llbnad.inference.write import predict
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at
from tests.conftest import save_image


@pytest.fixture(scope="module")
def model(model_files):
    return Model.load(model_files["patchcore"])


@pytest.fixture(scope="module")
def threshold(model, few_cells, tmp_path_factory):
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"]]
    scores = predict(model, paths, tmp_path_factory.mktemp("scored"))["score"]
    return threshold_at(np.sort(scores.to_numpy(np.float32)), 0.3)


def test_an_image_looks_the_same_whatever_it_is_scored_with(model, threshold, few_cells, tmp_path):
    manifest, root = few_cells
    first, *others = [root / path for path in manifest["path"]]
    predict(model, [first, *others], tmp_path, threshold=threshold)
    (beside_others,) = (tmp_path / "heatmaps").glob("00000_*.png")
    content = beside_others.read_bytes()
    predict(model, [first], tmp_path, threshold=threshold)
    assert [path.name for path in (tmp_path / "heatmaps").iterdir()] == [beside_others.name]  # none of the call before
    assert beside_others.read_bytes() == content


def test_images_that_go_while_pictures_are_drawn_keep_their_scores(model, threshold, few_cells, tmp_path):
    manifest, root = few_cells
    folder, out = tmp_path / "camera", tmp_path / "out"
    folder.mkdir()
    paths = [folder / f"{number:03d}.png" for number in range(60)]
    for path, source in zip(paths, [*manifest["path"]] * 3, strict=True):
        shutil.copy(root / source, path)

    def empty_the_folder() -> None:
        while not (out / "predictions.csv").exists():
            time.sleep(0.001)
        for path in reversed(paths[20:]):
            path.unlink()

    line = threading.Thread(target=empty_the_folder)
    line.start()
    table = predict(model, paths, out, threshold=threshold)
    line.join()
    assert table["score"].notna().all() and (table["error"] == "").all()
    drawn = table["heatmap"] != ""
    assert 0 < drawn.sum() < 60
    assert sorted(table["heatmap"][drawn]) == sorted(f"heatmaps/{path.name}" for path in (out / "heatmaps").iterdir())
    written = pd.read_csv(out / "predictions.csv", keep_default_na=False)
    assert written["heatmap"].tolist() == table["heatmap"].tolist()
    assert (out / "contact_sheet.png").exists()


def test_without_heat_maps_the_table_and_the_sheet_are_the_same(model, threshold, few_cells, tmp_path):
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"][:3]]
    full = predict(model, paths, tmp_path, threshold=threshold)
    sheet = (tmp_path / "contact_sheet.png").read_bytes()
    bare = predict(model, paths, tmp_path, threshold=threshold, heatmaps=False)
    assert (full["heatmap"] != "").all() and (bare["heatmap"] == "").all()
    assert bare.drop(columns="heatmap").equals(full.drop(columns="heatmap"))
    assert list((tmp_path / "heatmaps").iterdir()) == []  # none of the call before
    assert (tmp_path / "contact_sheet.png").read_bytes() == sheet


@pytest.mark.parametrize("out", ["images", "images/scored", "images/a/b", "link/scored"])
def test_pictures_are_never_written_among_the_images(tmp_path, out):
    images = [save_image(tmp_path / "images" / "a" / "1.png")]
    (tmp_path / "link").symlink_to(tmp_path / "images")
    with pytest.raises(
        ConfigError, match=r"--out .* lies in .*images: the next call would take its pictures for images"
    ):
        refuse_own_pictures([tmp_path / "images"], images, tmp_path / out)


def test_pictures_of_an_earlier_call_are_no_images(tmp_path):
    pictures = [save_image(tmp_path / name) for name in ("contact_sheet.png", "heatmaps/00000_a.png")]
    others = [save_image(tmp_path / name) for name in ("a.png", "heatmaps/a.png", "b/contact_sheet.png")]
    for picture in pictures:
        with pytest.raises(ConfigError, match=f"{picture.name} is a picture in --out"):
            refuse_own_pictures([picture], [picture], tmp_path)
    refuse_own_pictures(others, others, tmp_path)
    refuse_own_pictures([tmp_path / "b"], others[2:], tmp_path / "beside")


def test_cases_are_called_what_the_decision_made_of_them():
    kinds = [(label, name) for name in ("crack", "OK", None) for label in ("defect", "normal", "unsure", "")]
    assert [_outcome(label, name)[0].removesuffix(" · ") for label, name in kinds] == [
        "found", "missed", "unsure", "", "false alarm", "passed", "unsure", "", "defect", "normal", "unsure", ""
    ]  # fmt: skip
    colours = [_outcome(label, name)[1] for label, name in kinds]
    found, missed, unsure, of_defects = colours[:4]
    false_alarm, passed, unsure_normal, of_normals = colours[4:8]
    assert len({found, missed, false_alarm, passed, unsure}) == 5 and unsure == unsure_normal == colours[10]
    assert of_defects != of_normals  # nothing was decided: the colour is that of the label
    assert colours[8:10] == [ANOMALOUS_COLOUR, NORMAL_COLOUR] and colours[11] == UNKNOWN_COLOUR
