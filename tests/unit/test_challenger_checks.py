"""Acceptance on analytic scores: a good successor passes, and each bad successor is refused for its own reason."""

import math
from dataclasses import replace

import numpy as np
import pytest

from llbnad.config import Promotion
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.challenger_checks import CHECKS, judge, kept_share
from llbnad.monitoring.drift import DriftReport, DriftStatistic
from llbnad.monitoring.novelty import Alarm, Novelty
from llbnad.monitoring.probe import Probe, retake, take_probe
from llbnad.monitoring.sensitivity_check import Compared
from llbnad.monitoring.threshold_check import reach, threshold
from llbnad.monitoring.verdict_check import Judged, judged_images
from tests.unit.test_detectors import DEFECT, NORMAL, MadeFeatures, fitted
from tests.unit.test_sensitivity_check import drawn_on

BOUNDS = Promotion()
RANKS = np.linspace(1, 2, 40)


def probe(kept=RANKS, rejected=RANKS + 2, defects=RANKS + 2, kept_share=0.9):
    def named(prefix, scores):
        return {f"{prefix}{number:02d}": float(score) for number, score in enumerate(scores)}

    normals = named("n", RANKS)
    labelled = normals | named("d", defects)
    anomalous = {image_id: image_id.startswith("d") for image_id in labelled}
    return Probe(named("k", kept), named("r", rejected), labelled, anomalous, kept_share)


def calibrated(value=2.2):
    """A threshold of `value` from 99 scores at 5 %; the rate it promises is 1.9 to 11.3 % at 95 % confidence."""
    return threshold_at(np.linspace(value - 0.94, value + 0.04, 99), 0.05)


def with_body(value):
    """A threshold of `value`, from 99 scores whose body, the lower half, is that of scores around 1.5."""
    body = np.exp(np.random.default_rng(0).normal(np.log(1.5), 0.1, 90))
    return threshold_at(np.sort([*body, *[value] * 9]), 0.05)


def refused(own, champion=None, challenger=None, calibration=None, learnt=None, judged=None):
    findings = judge(own, champion, challenger, BOUNDS, calibration or calibrated(), learnt, judged)
    return {finding.name for finding in findings if finding.failed}


def test_all_checks_are_judged_and_a_first_model_can_pass():
    findings = judge(probe(), None, None, BOUNDS, calibrated())
    assert tuple(finding.name for finding in findings) == CHECKS
    outcomes = {finding.name: finding.outcome for finding in findings}
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == {
        "verdicts", "agreement", "sensitivity", "alarms", "shift"
    }  # fmt: skip
    assert set(outcomes.values()) == {"passed", "skipped"}


def test_with_a_champion_labels_and_new_images_nothing_is_skipped():
    judged = Judged({"d.png": 4.0}, {"n.png": 1.0})
    drawn = Compared(drawn_on(12, before=2, now=2), 12)
    findings = judge(probe(), probe(), probe(), BOUNDS, calibrated(), learnt(brightness=0.1), judged, drawn)
    assert {finding.outcome for finding in findings} == {"passed"}


def test_the_own_limits_hold_where_the_champion_s_images_are_too_few_to_compare():
    """A champion from a clean first day had rejected nothing and knew no labels."""
    before = replace(probe(), rejected={}, labelled={}, anomalous={})
    assert refused(probe(), before, before) == set()
    assert refused(probe(rejected=RANKS - 2, defects=RANKS - 2), before, before) == {"separation", "labelled"}
    gone = replace(before, kept={})  # all its images have left the data
    assert refused(probe(), gone, gone) == set()
    assert refused(probe(kept=np.full(40, 1.5)), gone, gone) == {"spread"}


def test_scores_in_another_unit_but_the_same_order_are_accepted():
    other = probe(RANKS * 30, RANKS * 30 + 60, RANKS * 30 + 60)
    assert refused(other, probe(), other, calibrated(63)) == set()


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        ({"kept": [*RANKS[:-1], math.nan]}, {"finite_scores", "spread", "threshold", "separation", "agreement"}),
        ({"kept": np.full(40, 1.5)}, {"spread", "agreement"}),
        ({"kept": RANKS[::-1]}, {"agreement"}),
        ({"rejected": RANKS}, {"separation"}),
        ({"defects": RANKS + 0.5}, {"labelled"}),
        ({"kept_share": 0.5}, {"kept_share"}),
    ],
)
def test_a_bad_successor_is_refused_for_its_own_reason(bad, reasons):
    assert refused(probe(**bad), probe(), probe(**bad)) == reasons


@pytest.mark.parametrize(
    ("value", "unseen", "passes"),
    [
        (2.2, 40, True),
        (1.93, 40, True),  # above it are 3 of the 40 learnt: 7.5 %, which 99 scores allow
        (1.8, 40, False),  # 8 of 40
    ],
)
def test_the_threshold_must_fit_the_detector(value, unseen, passes):
    own = probe(rejected=RANKS[40 - unseen :] + 2)
    if unseen < 8:
        own = Probe(own.kept, own.rejected, {}, {}, own.kept_share)
    assert ("threshold" not in refused(own, calibration=calibrated(value))) is passes


@pytest.mark.parametrize(("value", "passes"), [(6.4, True), (6.6, False)])
def test_a_threshold_must_be_within_reach_of_unseen_images(value, passes):
    """The highest unseen score is 4, the median of the learnt ones 1.5: 6.5 is out of reach."""
    wide = threshold_at(np.geomspace(0.1, value, 99), 0.01)  # so wide that the body does not bind
    assert wide.value == pytest.approx(value) and reach(wide) < 3
    assert ("threshold" not in refused(probe(), calibration=wide)) is passes


@pytest.mark.parametrize(
    ("value", "passes", "word"),
    [
        (1.5, False, "inside the body"),  # at its middle
        (1.7, True, ""),
        (2.0, True, ""),
        (60.0, False, "blind: a kept defect may have set it"),
    ],
)
def test_the_threshold_lies_above_the_body_of_the_scores_and_not_out_of_its_sight(value, passes, word):
    """Nothing that the final detector learnt shows a threshold that 9 kept defects set: all of it is below."""
    by_heart = Probe(probe(kept=RANKS * 1e-3).kept, {}, {}, {}, 1.0)
    threshold = with_body(value)
    threshold = threshold if threshold.value == value else replace(threshold, value=value)
    (found,) = [one for one in judge(by_heart, None, None, BOUNDS, threshold) if one.name == "threshold"]
    assert found.failed is not passes and word in found.observed


def test_reach_is_measured_in_spreads_of_the_lower_half():
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(0, 0.2, 20_000))
    # the 40 % quantile of a normal distribution is .253 standard deviations below its middle
    assert reach(replace(threshold_at(scores, 0.01), value=np.exp(0.6))) == pytest.approx(3.253, abs=0.1)
    defects = np.concatenate([scores[:16_000], np.full(4_000, 50.0)])  # a fifth of the images
    assert reach(replace(threshold_at(defects, 0.01), value=np.exp(0.6))) == pytest.approx(2.03, abs=0.1)
    for useless in ([1.0] * 40, [1.0, 2.0]):
        assert reach(threshold_at(np.array(useless), 0.1)) is None
    # scores that have no logarithms: quantiles -6, 0 and 6, the threshold 10; .777 from the second to the third
    even = replace(threshold_at(np.arange(-8.0, 13.0), 0.1), value=10)
    assert reach(even) == pytest.approx(10 / 6 * 0.7777, rel=1e-3)


@pytest.mark.parametrize(("alarms", "refuses"), [(0, False), (2, False), (7, False), (8, True), (40, True)])
def test_a_threshold_keeps_its_promise_on_labelled_normal_images(alarms, refuses):
    """4 of 99 calibration scores lie above; so do 7 of 40 new ones in 1.3 % of cases, and 8 in 0.5 %."""
    calibration, own = calibrated(), probe()
    normals = [*RANKS[: 40 - alarms], *[5.0] * alarms]
    labelled = {**own.labelled, **{f"n{number:02d}": float(score) for number, score in enumerate(normals)}}
    found = threshold(calibration, replace(own, labelled=labelled), BOUNDS)
    assert found.failed is refuses
    seen = f"calls {alarms} of the probe's 40 labelled normal test images defects ({alarms / 40:.1%}"
    assert seen + (": more than it promises)" if refuses else ")") in found.observed
    # a refusal names what failed, and nothing else
    assert (
        "spreads above the body of the calibration scores (allowed: 0.3 to 6 spreads)" in found.observed
    ) is not refuses


def test_a_detector_that_knows_its_images_by_heart_has_a_sane_threshold():
    by_heart = probe(kept=RANKS * 1e-3, rejected=RANKS[:2] + 2, defects=[])
    by_heart = Probe(by_heart.kept, by_heart.rejected, {}, {}, by_heart.kept_share)
    assert refused(by_heart, calibration=calibrated(1.5)) == set()


def learnt(count=20, alarms=0, by_chance=1.0, **effects):
    called = tuple(Alarm(f"{n:064x}", f"line/{n}.png", 9.0 - n, "defect") for n in range(alarms))
    statistics = tuple(DriftStatistic(name, 1, 2, effect, 1e-6, True) for name, effect in effects.items())
    return Novelty(count, called, by_chance, DriftReport(100, count, statistics))


@pytest.mark.parametrize(
    ("new", "reasons"),
    [
        (learnt(brightness=0.7, sharpness=1.4, features=0.3), set()),  # drift that warns and does not refuse
        (learnt(brightness=3.7), {"shift"}),
        (learnt(features=0.5), {"shift"}),
        (learnt(alarms=4, by_chance=1e-4), set()),  # a fifth
        (learnt(alarms=5, by_chance=0.02), set()),  # more, but of a threshold from so few images that chance may do it
        (learnt(alarms=5, by_chance=1e-4), {"alarms"}),
        (learnt(alarms=20, by_chance=1e-9, features=0.5), {"alarms", "shift"}),
        (Novelty(3), set()),
    ],
)
def test_what_is_newly_learnt_must_be_like_what_was_known(new, reasons):
    assert refused(probe(), probe(), probe(), learnt=new) == reasons


def test_a_refusal_says_what_was_seen_and_what_to_do():
    new = learnt(20, 13, 1e-6, brightness=3.7)
    findings = {one.name: one for one in judge(probe(), probe(), probe(), BOUNDS, calibrated(), new)}
    said = "of 20 images newly learnt as normal the champion calls 13 (65%) defects (0.png, 1.png, 2.png and 10 more)"
    assert said == findings["alarms"].observed
    assert "brightness by 3.70 (1 → 2)" in findings["shift"].observed
    assert all("call them normal in the review file, or promote" in findings[x].expected for x in ("alarms", "shift"))


def test_chance_of_alarms_is_exact():
    # the threshold is the 9th of 9 scores: a new score is above it with probability 1/10, two of two in 2/(10·11)
    threshold = threshold_at(np.arange(1, 10), 0.1, "none")
    assert (threshold.value, threshold.n) == (9, 9)
    assert threshold.chance_of_alarms(0, 2) == 1
    assert threshold.chance_of_alarms(1, 1) == pytest.approx(1 / 10)
    assert threshold.chance_of_alarms(2, 2) == pytest.approx(2 / (10 * 11))


def test_what_cannot_be_compared_passes_and_says_so():
    few = probe(rejected=[], defects=[])
    findings = {finding.name: finding for finding in judge(few, None, None, BOUNDS)}
    assert {name for name, finding in findings.items() if not finding.skipped} == {
        "finite_scores", "spread", "kept_share"
    }  # fmt: skip
    assert not any(finding.failed for finding in findings.values())
    assert findings["separation"].observed == "0 images are too few to compare"
    assert findings["labelled"].observed == "40 labelled images are set aside for testing"
    assert findings["threshold"].observed == "the model has no threshold"


def verdict_finding(judged, calibration=None, bounds=BOUNDS):
    findings = judge(probe(), None, None, bounds, calibration or calibrated(2.2), judged=judged)
    return next(finding for finding in findings if finding.name == "verdicts")


def test_one_defect_that_a_person_named_binds():
    found = verdict_finding(Judged({"a/4.png": 2.1}, {}))
    assert found.failed
    assert found.observed == "calls 1 of 1 images normal that people called defects (a/4.png)"
    assert "raise calibration.target_fpr" in found.expected
    assert verdict_finding(Judged({"a/4.png": 2.3}, {})).outcome == "passed"
    assert verdict_finding(Judged({"a/4.png": math.nan}, {})).failed


@pytest.mark.parametrize(
    ("before", "passes"),
    [
        ({"a", "b", "c"}, True),  # the new one misses one of three that the champion misses
        ({"a"}, False),  # no better
        ({"b", "c"}, False),  # it misses another
        (set(), False),
    ],
)
def test_a_detector_that_misses_less_than_the_champion_follows_it(before, passes):
    found = verdict_finding(Judged({"a": 2.1, "b": 2.3, "c": 2.3, "d": 2.3}, {}, missed_before=frozenset(before)))
    assert (found.outcome == "passed") is passes
    assert "calls 1 of 4 images normal that people called defects (a)" in found.observed
    assert ("the champion 3, these among them" in found.observed) is passes


def test_missed_defects_may_be_allowed_and_many_are_not_all_named():
    scores = {f"{number:02d}.png": 2.3 - 0.2 * (number < 12) for number in range(40)}
    assert verdict_finding(Judged(scores, {})).observed.endswith("(00.png, 01.png, " + ", ".join(
        f"{number:02d}.png" for number in range(2, 10)) + " and 2 more)")  # fmt: skip
    assert verdict_finding(Judged(scores, {}), bounds=Promotion(max_missed=0.3)).outcome == "passed"
    assert verdict_finding(Judged(scores, {}), bounds=Promotion(max_missed=0.29)).failed


def test_false_alarms_on_what_people_called_normal_bind_beyond_the_stated_rate():
    """With 4 of 99 calibration scores above the threshold, one alarm of two is chance; two are not."""
    alarm = verdict_finding(Judged({}, {"a.png": 2.3, "b.png": 1.0}))
    assert alarm.outcome == "passed"
    assert alarm.observed == "calls 1 of 2 images defects that people called normal (a.png)"
    both = verdict_finding(Judged({}, {"a.png": 2.3, "b.png": 2.3}))
    assert both.failed and "(a.png, b.png)" in both.observed


def test_images_that_were_learnt_as_people_said_are_no_test():
    model = fitted(PatchcoreConfig(memory_size=400), NORMAL[:30])
    known, unknown, fresh, learnt_defect = NORMAL[0], NORMAL[35], DEFECT[0], NORMAL[1]
    verdicts = {known: "normal", unknown: "normal", fresh: "defect", learnt_defect: "defect", "gone": "defect",
                NORMAL[2]: "exclude"}  # fmt: skip
    names = {image_id: f"{image_id}.png" for image_id in (*NORMAL, *DEFECT)}
    judged = judged_images(model, MadeFeatures(), verdicts, NORMAL[:30], names)
    # a verdict may be younger than the detector, which then learnt the defect
    assert set(judged.defects) == {names[fresh], names[learnt_defect]}
    assert (set(judged.normals), judged.n_learnt) == ({names[unknown]}, 1)
    assert judged.missed_before == frozenset()
    champion = replace(model, threshold=threshold_at(np.array([judged.defects[names[learnt_defect]]] * 9), 0.1))
    again = judged_images(model, MadeFeatures(), verdicts, NORMAL[:30], names, champion)
    assert again == replace(judged, missed_before=frozenset({names[learnt_defect]}))
    assert judged.defects[names[fresh]] == model.score(MadeFeatures(), [fresh], "").values[0]
    only = verdict_finding(Judged({}, {}, 3))
    assert only.skipped and only.observed == "the detector learnt all 3 images that people called normal"


@pytest.mark.parametrize(
    ("champion", "overruled", "passes"),
    [(0.9, (0, 0), False), (0.994, (0, 0), False), (0.995, (0, 0), True), (1.0, (0, 0), True),
     (0.9, (2, 0), True), (0.9, (0, 2), True), (BOUNDS.min_kept_share - 0.15, (0, 0), True)],
)  # fmt: skip
def test_a_champion_whose_share_means_nothing_does_not_bind_the_kept_share(champion, overruled, passes):
    before = replace(probe(kept_share=champion), n_overruled=overruled[0])
    own = replace(probe(kept_share=0.6), n_overruled=overruled[1])
    found = kept_share(own, before, BOUNDS)
    assert (not found.failed) is passes and ("does not bind" in found.observed) is passes
    assert kept_share(replace(own, kept_share=0.1), before, BOUNDS).failed


def test_a_probe_survives_json_even_with_scores_that_are_no_numbers():
    import json

    one = probe(kept=[1.0, math.inf, math.nan])
    again = Probe.of(json.loads(json.dumps(one.content(), allow_nan=False)))
    assert again.rejected == one.rejected and again.anomalous == one.anomalous
    assert [math.isfinite(score) for score in again.kept.values()] == [True, False, False]


def test_a_probe_of_an_earlier_release_is_read_and_its_labels_of_learnt_images_are_left_out():
    model = fitted(PatchcoreConfig(memory_size=400), NORMAL[:30])
    labelled = {NORMAL[1]: 0.1, NORMAL[35]: 1.0, DEFECT[0]: 2.0}
    content = Probe({NORMAL[0]: 0.1}, {}, labelled, {name: name in DEFECT for name in labelled}, 1.0).content()
    del content["n_overruled"]
    own = take_probe(model, MadeFeatures(), NORMAL[:30], DEFECT[:2], {}, 8, n_overruled=2)
    tested = {NORMAL[35], DEFECT[0]}
    before, again = retake(Probe.of(content), model, MadeFeatures(), {*NORMAL, *DEFECT}, tested, own)
    assert before.labelled == {NORMAL[35]: 1.0, DEFECT[0]: 2.0} and before.kept == {NORMAL[0]: 0.1}
    assert set(again.labelled) == tested and again.anomalous == {NORMAL[35]: False, DEFECT[0]: True}
    assert (before.n_overruled, again.n_overruled, again.kept_share) == (0, 2, 30 / 32)
