"""A challenger that is blind to what the champion saw is refused; an equal one and chance pass."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llbnad.config import Promotion
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.sensitivity_check import (
    NO_CHAMPION,
    Compared,
    answers,
    common_images,
    compare,
    net_loss,
    sensitivity,
)

BOUNDS = Promotion()


def drawn_on(images, before, now, kinds=("scratch", "blot"), sizes=(4, 8, 16)):
    """Return what two detectors make of drawings; `before` and `now` are one answer, or one per image."""
    answers = zip(np.broadcast_to(before, images).tolist(), np.broadcast_to(now, images).tolist(), strict=True)
    rows = [
        (f"i{number:02d}", kind, size, old, new)
        for number, (old, new) in enumerate(answers)
        for kind in kinds
        for size in sizes
    ]
    return pd.DataFrame(rows, columns=["image_id", "kind", "size", "before", "now"])


@pytest.mark.parametrize(
    ("before", "now", "refuses"),
    [
        (2, 2, False),
        (2, 0, True),
        (2, 1, False),  # still above the threshold
        (1, 0, False),  # the champion was unsure
        (0, 2, False),
        (2, [0] * 2 + [2] * 10, False),  # two images of twelve: chance
        (2, [0] * 11 + [2], True),
        ([2] * 6 + [0] * 6, [0] * 6 + [2] * 6, False),  # as many gained as lost
    ],
)
def test_only_losses_beyond_chance_refuse(before, now, refuses):
    finding = sensitivity(Compared(drawn_on(12, before, now), 12), BOUNDS)
    assert finding.failed is refuses and not finding.skipped
    assert ("BLIND" in finding.observed) is refuses


def test_a_kind_that_is_lost_is_named_though_another_is_gained():
    table = pd.concat([drawn_on(12, 2, 0, ["scratch"]), drawn_on(12, 0, 2, ["blot"])])
    finding = sensitivity(Compared(table, 12), BOUNDS)
    assert finding.failed
    assert "scratch 0% (champion 100%, lost 100% of these, BLIND)" in finding.observed
    assert "blot 100% (champion 0%, lost none)" in finding.observed
    assert net_loss(table[table["kind"] == "scratch"]) == 1


@pytest.fixture(scope="module")
def line(model_files, few_cells):
    """A detector with a threshold, the rows of normal images, their root, and the pixels that the detector learnt."""
    manifest, root = few_cells
    rows = manifest[manifest["anomaly_class"] == "OK"]
    model = Model.load(model_files["patchcore"])
    scores = [one.score for one in Predictor(model).predict([root / path for path in rows["path"]])]
    return replace(model, threshold=threshold_at(np.array(scores) + 0.05, 0.1)), rows, root


def test_an_equal_challenger_passes_and_a_blinded_one_is_refused(line):
    model, rows, root = line
    same = compare(Predictor(model), Predictor(model), rows, root, 9)
    assert (same.table["before"] == same.table["now"]).all() and (same.table["before"] == 2).any()
    assert not sensitivity(same, BOUNDS).failed
    blinded = replace(model, threshold=threshold_at(model.threshold.scores + 0.3, 0.1))
    compared = compare(Predictor(blinded), Predictor(model), rows, root, 9)
    finding = sensitivity(compared, BOUNDS)
    assert finding.failed and "blot 0%" in finding.observed
    lower = replace(model, threshold=model.threshold.at(0.01))  # another rate: fewer finds, but no blindness
    at_its_rate = compare(Predictor(lower), Predictor(model), rows, root, 9)
    assert at_its_rate.table.equals(same.table) and lower.threshold.value > model.threshold.value
    turned = compared.table.rename(columns={"before": "now", "now": "before"})
    assert not sensitivity(Compared(turned, compared.images), BOUNDS).failed


def test_what_cannot_be_measured_is_skipped_with_its_reason(line):
    model, rows, root = line
    bare = replace(model, threshold=None)
    cases = {
        NO_CHAMPION: NO_CHAMPION,
        compare(Predictor(bare), Predictor(model), rows, root, 12): "the model has no threshold",
        compare(Predictor(model), Predictor(bare), rows, root, 12): "the champion has no threshold",
        compare(Predictor(model), Predictor(model), rows, root, 0): "promotion.sensitivity_images is 0",
        compare(Predictor(model), Predictor(model), rows.head(7), root, 12): "7 normal images",
    }
    for why, begins in cases.items():
        finding = sensitivity(why, BOUNDS)
        assert finding.skipped and finding.observed.startswith(begins)


def test_drawn_on_are_test_images_or_what_both_learnt(few_cells):
    manifest, _ = few_cells
    ids = manifest["image_id"].tolist()
    training = manifest.assign(split="train")
    assert common_images(training, ids[:5], ids[3:])["image_id"].tolist() == ids[3:5]
    tested = manifest.assign(split="test")
    assert set(common_images(tested, ids, ids)["anomaly_class"]) == {"OK"}


def test_a_sure_find_is_above_the_interval_of_the_threshold():
    threshold = threshold_at(np.linspace(1, 2, 99), 0.1)
    edges = np.array([threshold.unsure_low, threshold.value, threshold.unsure_high])
    assert answers(edges, threshold).tolist() == [0, 0, 1]
    assert answers(edges + 0.001, threshold).tolist() == [0, 1, 2]
