"""A threshold without labels: its promise on exchangeable scores, and its statement where it cannot promise."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.stats import norm

from llbnad.config import CalibrationConfig, EncoderConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import ConfigError, DataError
from llbnad.inference.predict import threshold_of
from llbnad.model.calibrate import FoldTrainer, assign_folds, calibrate, out_of_fold
from llbnad.model.model import Model, train
from llbnad.model.robust_bound import robust_bound
from llbnad.model.threshold import Threshold, images_needed, threshold_at
from tests.conftest import made_manifest
from tests.unit.test_detectors import MadeFeatures

DETECTOR = PatchcoreConfig(memory_size=400)


def test_known_ranks():
    scores = np.arange(1, 100)  # 99 scores: k = 100 · (1 - α)
    assert threshold_at(scores, 0.1).value == 90
    assert threshold_at(scores, 0.01).value == 99
    assert threshold_at(scores, 0.1, unsure=False).labels(np.array([90, 90.5])).tolist() == ["normal", "defect"]


@pytest.mark.parametrize("target", [0.01, 0.05, 0.2])
def test_realised_rate_on_exchangeable_scores_is_what_was_promised(target):
    """Over many calibration sets of exponential scores, whose true rates are known exactly."""
    rng = np.random.default_rng(0)
    found = [threshold_at(rng.exponential(size=400), target) for _ in range(400)]
    rates = np.exp([-one.value for one in found])
    assert rates.mean() == pytest.approx((400 + 1 - np.ceil(401 * (1 - target))) / 401, rel=0.06)
    assert rates.mean() <= target * 1.06
    within = [one.fpr_low <= rate <= one.fpr_high for one, rate in zip(found, rates, strict=True)]
    assert 0.92 <= np.mean(within) <= 0.98
    quantile = -np.log(target)
    covered = [one.low <= quantile and (one.high is None or quantile <= one.high) for one in found]
    assert np.mean(covered) >= 0.93


def test_monotone_in_the_target_and_equal_under_permutation():
    scores = np.random.default_rng(1).gamma(2, size=333)
    values = [threshold_at(scores, target).value for target in (0.3, 0.1, 0.03, 0.01, 0.001)]
    assert values == sorted(values)
    first, second = threshold_at(scores, 0.02), threshold_at(scores[::-1], 0.02)
    assert first.summary() == second.summary()
    assert np.array_equal(first.scores, second.scores)


def test_the_knob_is_the_threshold_calibrated_for_that_rate():
    scores = np.random.default_rng(2).random(500)
    assert threshold_at(scores, 0.01).at(0.1).summary() == threshold_at(scores, 0.1).summary()


def body(n=40, defects=6):
    """The quantiles of a log-normal distribution with median 0.3 and σ 0.2, the highest of them replaced by defects."""
    scores = np.exp(np.log(0.3) + 0.2 * norm.ppf((np.arange(n) + 0.5) / n))
    scores[n - defects :] = np.linspace(0.82, 0.95, defects)
    return scores.astype(np.float32)


def by_hand(values):
    """Return the bound for 1 % as the docstring says, of values that are compared as differences."""
    low, middle, high = np.quantile(values, [0.1, 0.4, 0.7])
    spread = max((middle - low) / 1.03, (high - middle) / (norm.ppf(0.7) - norm.ppf(0.4)))
    expected = norm.ppf(1 - 1 / len(values)) - norm.ppf(0.4)  # where the largest is expected
    return middle + (expected + 0.25) * spread


def test_the_bound_follows_from_the_body_and_scales_with_the_unit():
    assert robust_bound(body()) == pytest.approx(np.exp(by_hand(np.log(body()))), rel=1e-4)
    assert robust_bound(body() * 50) == pytest.approx(50 * robust_bound(body()), rel=1e-5)
    assert robust_bound(np.append(body()[:-6], [99] * 6)) == robust_bound(body())  # defects count as high, not how high
    shifted = body() - 1  # negative scores have no logarithm: differences count
    assert robust_bound(shifted) == pytest.approx(by_hand(shifted), rel=1e-5)
    wide = np.where(body() > np.quantile(body(), 0.4), body() * 1.5, body())  # normal images of two kinds
    assert robust_bound(wide) > 1.5 * robust_bound(body())


@pytest.mark.parametrize("scores", [[], np.arange(9), np.repeat([1.0, 2.0], 50), np.r_[np.ones(60), np.arange(2, 40)]])
def test_scores_without_a_body_have_no_bound(scores):
    assert robust_bound(np.asarray(scores, float)) is None


def test_a_kept_defect_does_not_set_the_threshold_of_a_young_line():
    blind, seeing = threshold_at(body(), 0.01, "none"), threshold_at(body(), 0.01)
    assert blind.value == pytest.approx(0.95) and blind.decided_by == "conformal" and blind.bound is None
    assert 0.3 * np.exp(2 * 0.2) < seeing.value < 0.82 and seeing.decided_by == "bound"
    assert seeing.value == seeing.bound == robust_bound(body())
    assert seeing.promised_fpr == pytest.approx(6 / 40) and not seeing.attained
    assert seeing.fpr_low == pytest.approx(0.0571, abs=1e-4)  # Clopper and Pearson's interval of 6 of 40
    assert seeing.fpr_high == pytest.approx(0.2984, abs=1e-4)
    assert "the bound of their body" in seeing.describe() and "above it 6 of 40 (" in seeing.describe()


@pytest.mark.parametrize("n", [20, 40, 400])
def test_a_bound_above_the_conformal_threshold_changes_neither_value_nor_promise(n):
    scores = np.minimum(body(n, 0), np.sort(body(n, 0))[-2])  # the bound is close to where the largest is expected
    with_bound, without = (threshold_at(scores, 0.01, bound) for bound in ("robust", "none"))
    assert with_bound.bound > with_bound.value and with_bound.decided_by == "conformal"
    for name in ("value", "low", "high", "promised_fpr", "fpr_low", "fpr_high"):
        assert getattr(with_bound, name) == getattr(without, name)


@pytest.mark.parametrize("scores", [body(20, 2), body(40, 6), body(40, 0), body(400, 0), body(400, 60), np.ones(30)])
@pytest.mark.parametrize("bound", ["robust", "none"])
def test_the_unsure_interval_is_finite_and_holds_the_threshold(scores, bound):
    found = threshold_at(scores, 0.01, bound)
    assert scores.min() <= found.unsure_low <= found.value <= found.unsure_high < np.inf
    inside = np.array([found.unsure_low, found.value, found.unsure_high], np.float32)
    assert found.labels(inside).tolist() == ["unsure"] * 3
    outside = np.nextafter(inside[[0, 2]], np.array([-np.inf, np.inf], np.float32))
    assert found.labels(outside).tolist() == ["normal", "defect"]
    assert threshold_at(scores, 0.01, bound, unsure=False).labels(outside).tolist() == ["normal", "defect"]


def test_the_unsure_interval_narrows_with_the_images():
    widths = [one.unsure_high / one.unsure_low for one in (threshold_at(body(n, n // 10), 0.01) for n in (20, 80, 320))]
    assert widths == sorted(widths, reverse=True)


def test_the_unsure_interval_holds_the_bound_of_endless_images():
    """Over many draws of 40 log-normal scores with 6 defects; 95 % is what the percentiles aim at."""
    rng, truth = np.random.default_rng(3), np.quantile(np.log(body(20_000, 3000)), [0.1, 0.4])
    limit = np.exp(truth[1] + 5 * (truth[1] - truth[0]) / 1.03)
    found = [threshold_at(np.exp(np.log(0.3) + 0.2 * np.append(rng.normal(size=34), [9] * 6)), 0.01) for _ in range(40)]
    assert np.mean([one.unsure_low <= limit <= one.unsure_high for one in found]) >= 0.85


def test_the_knob_moves_a_bound_too():
    threshold = threshold_at(body(), 0.01)
    values = [threshold.at(rate).value for rate in (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 0.99)]
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert threshold.at(0.01).summary() == threshold.summary()
    assert threshold_at(body(), 0.01, "none").at(0.1).summary() == threshold_at(body(), 0.1, "none").summary()


def test_too_few_images_get_the_largest_score_and_the_truth():
    threshold = threshold_at(np.arange(20), 0.01)
    assert threshold.value == 19 and threshold.high is None
    assert not threshold.attained and threshold.promised_fpr == pytest.approx(1 / 21)
    assert "too few images for this target (99 are needed)" in threshold.describe()


@pytest.mark.parametrize("target", [0.01, 0.05, 0.3])
def test_the_images_that_keep_the_rate_below_twice_the_target_are_enough_and_named(target):
    needed = images_needed(target)
    for count in (needed, needed + 1, round(1.3 * needed), 2 * needed):
        enough = threshold_at(np.arange(count), target, "none")
        assert enough.fpr_high <= 2 * target and "would keep the rate below" not in enough.describe()
    few = threshold_at(np.arange(math.ceil(1 / target)), target, "none")
    assert few.attained and few.fpr_high > 2 * target
    assert few.describe().endswith(f"; {needed} images would keep the rate below {2 * target:.2%}")
    assert threshold_at(np.arange(99), 0.01).attained
    assert threshold_at([1.0], 0.5).summary()["low"] is None


@pytest.mark.parametrize(("target", "message"), [(5, "did you mean 0.05?"), (0, "in (0, 1)"), (1.0, "in (0, 1)")])
def test_impossible_rates_are_refused(target, message):
    with pytest.raises(ConfigError) as caught:
        threshold_at(np.arange(9), target)
    assert message in str(caught.value)


def test_no_score_is_refused():
    with pytest.raises(DataError, match="at least 1"):
        threshold_at([], 0.1)


def test_rates_count_labelled_images_alone():
    threshold = threshold_at(np.arange(1, 100), 0.5)  # 50
    anomalous = pd.Series([False, False, True, True, None], dtype="boolean")
    rates = threshold.rates(np.array([1, 60, 70, 3, 99]), anomalous)
    assert rates == {"fpr_at_threshold": 0.5, "recall_at_threshold": 0.5, "unsure_share": 0.2}  # 60 is unsure
    none = {"fpr_at_threshold": None, "recall_at_threshold": None, "unsure_share": None}
    assert threshold_at(np.arange(1, 100), 0.5, unsure=False).rates(np.ones(1), anomalous[4:]) == none


def kept_images(count=90):
    return made_manifest(count, 0).assign(image_id=[f"{number:04d}" for number in range(count)])


def test_folds_follow_the_sample_not_the_table():
    views = made_manifest(150, 0, views=3)
    folds = assign_folds(views, 3, 0)
    assert folds.groupby(views.set_index("image_id")["sample_id"]).nunique().eq(1).all()
    pd.testing.assert_series_equal(folds, assign_folds(views.sample(frac=1, random_state=1), 3, 0))
    assert set(folds) == {0, 1, 2}
    fewer = views[views["sample_id"] != "sample 7"]
    assert assign_folds(fewer, 3, 0).eq(folds[folds.index.isin(fewer["image_id"])]).all()
    with pytest.raises(DataError, match=r"too few for 3 calibration folds"):
        assign_folds(views[:1], 3, 0)


@pytest.mark.parametrize(("samples", "folds"), [(20, 3), (20, 10), (12, 10), (3, 3), (2, 3)])
def test_few_samples_are_dealt_out_evenly(samples, folds):
    views = made_manifest(samples, 0, views=2)
    for seed in range(5):
        found = assign_folds(views, folds, seed)
        assert found.groupby(views.set_index("image_id")["sample_id"]).nunique().eq(1).all()
        assert found.nunique() == min(samples, folds)
        assert found.value_counts().max() - found.value_counts().min() <= 2  # one sample of two views
        pd.testing.assert_series_equal(found, assign_folds(views.sample(frac=1, random_state=1), folds, seed))


def test_no_fold_s_detector_sees_what_it_scores_and_every_image_is_scored_once():
    calls = []

    class Watched(MadeFeatures):
        def batches(self, image_ids, description):
            calls.append((description, set(image_ids)))
            yield from super().batches(image_ids, description)

    features = Watched()
    scores = out_of_fold(kept_images(), FoldTrainer(features, EncoderConfig(), DETECTOR, 0), 3).scores
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    assert len(pairs) == 3
    for (fit, seen), (_, scored) in pairs:
        assert fit == "fit" and not seen & scored and len(seen | scored) == 90
    assert sorted(scores.image_ids) == kept_images()["image_id"].tolist()


def test_calibrated_detector_lets_few_normals_and_no_defect_through():
    features = MadeFeatures()
    kept = kept_images()
    settings = CalibrationConfig(target_fpr=0.05)
    threshold, pixels = calibrate(kept, features, EncoderConfig(), DETECTOR, settings, 0)
    model = train(EncoderConfig(), DETECTOR, features, kept["image_id"].tolist(), 0)
    fresh = model.score(features, [f"{number:04d}" for number in range(200, 500)]).values
    defects = model.score(features, [f"{number:04d}" for number in range(1000, 1040)]).values
    assert threshold.n == 90
    assert (fresh > threshold.value).mean() <= threshold.fpr_high
    assert (threshold.labels(defects) == "defect").all()
    again, pixels_again = calibrate(kept.sample(frac=1), features, EncoderConfig(), DETECTOR, settings, 0)
    assert again.summary() == threshold.summary() and pixels_again.summary() == pixels.summary()
    assert pixels.levels.n == 90 and pixels.levels.target_fpr == 0.05
    assert calibrate(kept, features, EncoderConfig(), DETECTOR, CalibrationConfig(folds=0), 0) == (None, None)


def test_the_model_file_carries_the_threshold_and_its_scores(tmp_path):
    model = train(EncoderConfig(), DETECTOR, MadeFeatures(), kept_images(20)["image_id"].tolist(), 0)
    threshold = threshold_at(body(), 0.02)
    replace(model, threshold=threshold).save(tmp_path / "with.safetensors")
    model.save(tmp_path / "without.safetensors")
    loaded = Model.load(tmp_path / "with.safetensors")
    assert loaded.threshold.summary() == threshold.summary()
    assert np.array_equal(loaded.threshold.scores, threshold.scores) and loaded.threshold.decided_by == "bound"
    assert loaded.threshold.at(0.1).summary() == threshold.at(0.1).summary()
    assert set(loaded.detector.tensors()) == set(model.detector.tensors())
    with safe_open(tmp_path / "with.safetensors", framework="np") as stored:
        assert json.loads(stored.metadata()["llbnad"])["threshold"]["value"] == threshold.value
    assert threshold_of(loaded, 0.1).value == threshold.at(0.1).value
    assert threshold_of(loaded, None).value == threshold.value
    bare = Model.load(tmp_path / "without.safetensors")
    assert bare.threshold is None
    with pytest.raises(DataError, match="has no threshold, so its false-positive rate cannot be set"):
        threshold_of(bare, 0.1)


def test_a_threshold_of_release_0_1_stays_what_it_was():
    old = {"value": 0.95, "low": None, "high": None, "target_fpr": 0.01, "promised_fpr": 1 / 41, "fpr_low": 0.0006,
           "fpr_high": 0.088, "n": 40, "attained": False}  # fmt: skip
    restored = Threshold.restore(old, body())
    assert restored.value == pytest.approx(0.95) and restored.promised_fpr == pytest.approx(1 / 41)
    assert restored.labels(np.array([0.94, 0.96])).tolist() == ["normal", "defect"]
    assert restored.at(0.1).bound is None


def test_a_model_of_a_later_release_is_refused_by_its_format(tmp_path):
    model = train(EncoderConfig(), DETECTOR, MadeFeatures(), kept_images(20)["image_id"].tolist(), 0)
    model.save(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="np") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        content = json.loads(stored.metadata()["llbnad"])
    del content["digest"]  # files of format 1 have none
    for old, accepted in (("llbnad model 1", True), ("llbnad model 9", False)):
        told = {"llbnad": json.dumps({**content, "format": old})}
        save_file(tensors, tmp_path / "other.safetensors", told)
        if accepted:
            assert Model.load(tmp_path / "other.safetensors").digest() == model.digest()
        else:
            with pytest.raises(DataError, match="its format is 'llbnad model 9'; expected llbnad model 1 or"):
                Model.load(tmp_path / "other.safetensors")
