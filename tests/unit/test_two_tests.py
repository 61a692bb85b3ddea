"""Two tests on the same images: what changed, and whether it is more than chance."""

import numpy as np
import pandas as pd
import pytest

from llbnad.evaluation.metrics import ranking
from llbnad.study.two_tests import draw_two_tests, two_tests

COUNT = 60  # images of each kind


def predictions(gap, seed=0, methods=("llbnad", "none"), labelled=True):
    """Scores of normal images around 0 and of defects around `gap`, by method."""
    random = np.random.default_rng(seed)
    names = [f"{kind}{number}" for kind in ("ok", "ng") for number in range(COUNT)]
    kinds = ["OK"] * COUNT + ["AK"] * COUNT if labelled else [None] * 2 * COUNT
    noise = random.normal(size=2 * COUNT)
    rows = [
        pd.DataFrame({"method": method, "image_id": names, "path": names, "anomaly_class": kinds,
                      "score": noise + np.repeat([0.0, gap if method == "llbnad" else 1.0], COUNT)})
        for method in methods
    ]  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def samples():
    names = predictions(1)["image_id"].unique()
    return pd.Series(names, index=names)


def test_a_larger_gap_is_better_beyond_chance_and_the_reverse_worse(tmp_path):
    better = two_tests(predictions(1.0), predictions(2.0), samples())
    worse = two_tests(predictions(2.0), predictions(1.0), samples())
    assert better.images == 2 * COUNT and (better.significance, worse.significance) == ("better", "worse")
    assert (better.earlier, better.now) == (worse.now, worse.earlier)
    assert better.low == pytest.approx(-worse.high) and better.low > 0
    own = predictions(2.0)
    own = own[own["method"] == "llbnad"]
    expected = ranking(*(own["score"][own["anomaly_class"] == kind].to_numpy() for kind in ("OK", "AK")))
    assert better.now == expected.auroc
    assert "better beyond the chance of these test images (of one seed" in better.describe()
    above = better.above.set_index("method")
    assert above.index.tolist() == ["none", "earlier"] and (above["significance"] == "better").all()
    assert above.loc["none", "difference"] == above.loc["earlier", "difference"]  # it had the scores of *none*
    assert above.loc["earlier", "difference"] == pytest.approx(better.now - better.earlier)
    assert better.low < better.now - better.earlier < better.high
    draw_two_tests(better, {"earlier": "before", "oracle": "not there"}, tmp_path / "a.png", "title")
    draw_two_tests(better, {"earlier": "before", "oracle": "not there"}, tmp_path / "b.png", "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_equal_scores_and_other_noise_are_chance():
    equal = two_tests(predictions(1.0), predictions(1.0), samples())
    assert equal.earlier == equal.now and equal.significance == "noise"
    assert "(+0.0000, from +0.0000 to +0.0000 at" in equal.describe() and "no more than the chance" in equal.describe()
    other = two_tests(predictions(1.0, seed=1), predictions(1.0, seed=2), samples())
    assert other.low < 0 < other.high


def test_false_positives_and_finds_stand_beside_the_difference():
    rows = predictions(2.0)
    assert two_tests(rows, rows, samples(), (1.0, None)).rates == ""  # a detector without a threshold
    said = two_tests(rows, rows, samples(), (-10.0, 10.0)).describe()
    assert said.endswith("without a test for chance: false positives 100.0% → 0.0%, recall 100.0% → 0.0%")
    own = rows[rows["method"] == "llbnad"]
    alarms = (own["score"] > 1)[own["anomaly_class"] == "OK"].mean()
    assert f"false positives {alarms:.1%} → " in two_tests(rows, rows, samples(), (1.0, 2.0)).rates


def test_without_labels_in_common_there_is_no_comparison():
    assert two_tests(predictions(1.0), predictions(2.0, labelled=False), samples()) is None
    renamed = predictions(1.0).assign(image_id=lambda rows: "other" + rows["image_id"])
    assert two_tests(renamed, predictions(2.0), samples()) is None


def test_without_none_both_are_compared_all_the_same():
    found = two_tests(predictions(1.0), predictions(2.0, methods=("llbnad",)), samples())
    assert found.above["method"].tolist() == ["earlier"] and found.significance == "better"
