"""A challenger beside the champion: which images are shown, and that both pictures are drawn."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.champion_pictures import COLUMNS, draw_differences, draw_scores, most_different
from llbnad.monitoring.probe import Probe


def probe(kept, rejected=None, labelled=None):
    labelled = labelled or {}
    return Probe(kept, rejected or {}, labelled, {name: name.startswith("bad") for name in labelled}, 0.9)


def limit(value, low=None, high=None):
    found = threshold_at(np.arange(100.0), 0.1)
    return replace(found, value=value, unsure_low=low or value, unsure_high=high or value)


@pytest.mark.parametrize(
    ("thresholds", "shown"),
    [
        ((limit(2.5), limit(2.5)), ["c", "b"]),
        ((limit(2.5, 2.4, 3.1), limit(2.5, 2.35, 2.6)), ["b", "d"]),  # c has another side, and is unsure for both
        ((None, limit(2.5)), ["b", "d"]),
        ((None, None), ["b", "d"]),
    ],
)
def test_another_label_comes_first_then_another_rank(thresholds, shown):
    """The champion's order is d a b c, the challenger's b a d c; only c changes its side of 2.5."""
    champion = probe({"a": 1.0, "b": 2.0, "gone": 9.0}, {"c": 3.0, "d": 0.1}, {"bad": math.nan})
    challenger = probe({"a": 2.2, "b": 2.1}, {"c": 2.4, "d": 2.3}, {"bad": 1.0})
    assert most_different(champion, challenger, thresholds, 2) == shown


def test_scores_of_all_kinds_are_drawn_and_equal_bytes_come_of_equal_scores(tmp_path):
    rng = np.random.default_rng(0)
    one = probe({f"k{n}": float(s) for n, s in enumerate(rng.random(40) + 0.1)}, {"r": 3.0}, {"good": 0.4, "bad": 4.0})
    other = replace(one, kept={name: score * 2 for name, score in one.kept.items()})
    for name in ("first.png", "again.png"):
        draw_scores(one, other, (1.0, None), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    draw_scores(one, other, (1.0, 2.0), tmp_path / "limits.png")
    assert (tmp_path / "limits.png").read_bytes() != (tmp_path / "first.png").read_bytes()
    draw_scores(probe({"k": -1.0}), probe({"k": 2.0}), (None, None), tmp_path / "negative.png")  # no logarithm


def test_both_detectors_are_shown_on_each_image(tmp_path, calibrated, model_files, few_cells):
    manifest, root = few_cells
    files = {path: root / path for path in manifest["path"][:3]}
    (tmp_path / "broken.png").write_bytes(b"no image")
    champion, challenger = Predictor(Model.load(calibrated)), Predictor(Model.load(model_files["padim"]))
    table = draw_differences({**files, "broken": tmp_path / "broken.png"}, champion, challenger, tmp_path / "both.png")
    assert table.columns.tolist() == list(COLUMNS) and table["image"].tolist() == list(files)
    assert set(table["champion says"]) <= {"normal", "unsure", "defect"} and set(table["challenger says"]) == {""}
    with Image.open(tmp_path / "both.png") as sheet:
        assert sheet.width > 900  # six tiles in a row
