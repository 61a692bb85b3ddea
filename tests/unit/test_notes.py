"""The notes of a run about itself: each where it applies, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from llbnad.model.threshold import FalsePositives, threshold_at
from llbnad.purification.aggregate import agreement
from llbnad.purification.notes import selection_notes, suspects, threshold_notes
from llbnad.purification.purify import Purified

IDS = [f"{number:03d}" for number in range(200)]
PATHS = {image_id: f"line/{image_id}.png" for image_id in IDS}


def table(n=40, defects=4, shuffled=False):
    """Consensus scores of log-normal shape whose last images are defects, and two sub-models of the same order."""
    scores = np.exp(0.2 * norm.ppf((np.arange(n) + 0.5) / n))
    scores[n - defects :] = np.arange(defects) + 5
    other = np.random.default_rng(0).permutation(scores) if shuffled else scores * 2
    index = pd.Index(IDS[:n], name="image_id")
    return pd.DataFrame({"sub_model_0": scores, "sub_model_1": other, "subset": 2, "score": scores}, index=index)


def decision(n=40, rejected=0):
    return Purified(tuple(IDS[: n - rejected]), tuple(IDS[n - rejected : n]), 1.0)


def test_a_young_line_that_kept_everything_names_the_images_that_stand_apart():
    notes = selection_notes(table(), decision(), PATHS)
    assert notes[0] == (
        "kept 40 of 40: the policy sees no second group of scores; "
        "4 images stand apart: 039.png, 038.png, 037.png, 036.png"
    )
    assert len(notes) == 2 and notes[1].startswith("few images: 40 where 100 are wanted")
    found = suspects(table(), decision(), PATHS)
    assert found["path"].tolist() == [f"line/{number:03d}.png" for number in (39, 38, 37, 36)]
    assert found["score"].tolist() == [8, 7, 6, 5] and set(found["status"]) == {"kept"}


def test_only_kept_images_that_stand_apart_are_named():
    assert selection_notes(table(), decision(rejected=3), PATHS)[0] == "kept 37 of 40; 1 image stands apart: 036.png"
    assert suspects(table(), decision(rejected=3), PATHS)["status"].tolist() == ["rejected"] * 3 + ["kept"]


def test_a_large_clean_set_has_one_line():
    (note,) = selection_notes(table(200, 0), decision(200), PATHS)
    assert note == "kept 200 of 200: the policy sees no second group of scores; no kept image stands apart"
    assert list(suspects(table(200, 0), decision(200), PATHS).columns) == ["image_id", "path", "score", "status"]


def test_a_long_list_of_names_is_cut():
    note = selection_notes(table(200, 20), decision(200), PATHS)[0]
    assert "20 images stand apart: 199.png, 198.png" in note and note.endswith("192.png and 12 more")


def test_images_that_people_excluded_are_not_counted():
    decided = Purified(tuple(IDS[:36]), (), 1.0)  # 036 … 039 are excluded
    assert suspects(table(), decided, PATHS).empty
    assert selection_notes(table(), decided, PATHS)[0].startswith("kept 36 of 36: ")


@pytest.mark.parametrize("scores", [table(200, 20, shuffled=True), table(200, 20).assign(sub_model_1=1.0)])
def test_sub_models_that_disagree_are_said_to(scores):
    assert any("sub-models disagree" in note for note in selection_notes(scores, decision(200), PATHS))


def test_agreement_is_asked_of_images_that_both_sub_models_treat_alike():
    """A sub-model that knows its own images by heart disagrees with the others there, and only there."""
    scores = table(90, 0)
    subset = np.arange(90) % 3
    by_heart = {f"sub_model_{k}": np.where(subset == k, -scores["score"], scores["score"]) for k in range(3)}
    scores = scores.assign(subset=subset, **by_heart)
    assert agreement(scores) == pytest.approx(1)
    assert agreement(scores[scores["subset"] < 2]) == pytest.approx(1)  # 0 and 2, on the images of 1
    assert agreement(scores[:20]) is None  # 7 images of each subset


def test_a_threshold_is_only_promised_until_it_is_measured_and_attained():
    values = table(200, 0)["score"].to_numpy()
    attained, small, bound = (
        threshold_at(values, 0.01),
        threshold_at(values[::5], 0.01),
        threshold_at(table()["score"], 0.01),
    )
    assert threshold_notes(attained, FalsePositives(2, 100)) == []
    assert threshold_notes(attained, FalsePositives(1, 10)) == []  # chance may give as many
    (broken,) = threshold_notes(attained, FalsePositives(30, 100))
    assert broken.startswith("30.00% false positives on 100 labelled normal test images, more than it promises")
    assert (
        "1.00% false positives" in threshold_notes(attained)[0] and "no labelled normal" in threshold_notes(attained)[0]
    )
    assert (
        "2.44% false positives" in threshold_notes(small)[0]
        and "largest calibration scores" in threshold_notes(small)[0]
    )
    (note,) = threshold_notes(bound, FalsePositives(1, 200))
    measured = "0.50% false positives on 200 labelled normal test images; promised are 10.00% false positives, "
    why = "where 1.00% were asked for, because the largest scores stand apart; "
    assert note.startswith(f"{measured}{why}from the body of the calibration scores of 40 images")
    assert note.endswith("like the kept ones, 2.79% to 23.66% at 95% confidence")
    (broken,) = threshold_notes(bound, FalsePositives(60, 200))
    assert broken.startswith("30.00% false positives on 200 labelled normal test images, more than it promises; ")
    assert threshold_notes(None) == [
        "no threshold: the detector gives scores and calls nothing a defect (calibration.folds is 0)"
    ]
