"""Acceptance on analytic scores: a good successor passes, and each bad successor is refused for its own reason."""

import math
from dataclasses import replace

import numpy as np
import pytest

from llbnad.config import Promotion
from llbnad.model.threshold import threshold_at
from llbnad.monitoring.champion_checks import CHECKS, judge
from llbnad.monitoring.drift import DriftReport, DriftStatistic
from llbnad.monitoring.novelty import Novelty, chance_of_alarms
from llbnad.monitoring.probe import Probe

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


def refused(own, champion=None, challenger=None, calibration=None, learnt=None):
    findings = judge(own, champion, challenger, BOUNDS, calibration or calibrated(), learnt)
    return {finding.name for finding in findings if not finding.passed}


def test_all_checks_are_judged_and_a_first_model_can_pass():
    findings = judge(probe(), None, None, BOUNDS, calibrated())
    assert tuple(finding.name for finding in findings) == CHECKS
    assert all(finding.passed for finding in findings)


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
        (6.4, 40, True),
        (6.6, 40, False),  # the highest unseen score is 4, the median of the learnt 1.5: 6.5 is out of reach
        (6.6, 4, True),  # too few unseen images to say what is too high
    ],
)
def test_the_threshold_must_fit_the_detector(value, unseen, passes):
    own = probe(rejected=RANKS[40 - unseen :] + 2)
    if unseen < 8:
        own = Probe(own.kept, own.rejected, {}, {}, own.kept_share)
    assert ("threshold" not in refused(own, calibration=calibrated(value))) is passes


def test_a_detector_that_knows_its_images_by_heart_has_a_sane_threshold():
    by_heart = probe(kept=RANKS * 1e-3, rejected=RANKS[:2] + 2, defects=[])
    by_heart = Probe(by_heart.kept, by_heart.rejected, {}, {}, by_heart.kept_share)
    assert refused(by_heart, calibration=calibrated(1.5)) == set()


def learnt(count=20, alarms=0, by_chance=1.0, **effects):
    statistics = tuple(DriftStatistic(name, 1, 2, effect, 1e-6, True) for name, effect in effects.items())
    return Novelty(count, alarms, by_chance, DriftReport(100, count, statistics))


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
    assert "of 20 images newly learnt as normal the champion calls 13 (65%) defects" in findings["alarms"].observed
    assert "brightness by 3.70 (1 → 2)" in findings["shift"].observed
    assert all("call them normal in the review file, or promote" in findings[x].expected for x in ("alarms", "shift"))


def test_chance_of_alarms_is_exact():
    # the threshold is the 9th of 9 scores: a new score is above it with probability 1/10, two of two in 2/(10·11)
    assert chance_of_alarms(0, 2, 9, 9) == pytest.approx(1)
    assert chance_of_alarms(1, 1, 9, 9) == pytest.approx(1 / 10)
    assert chance_of_alarms(2, 2, 9, 9) == pytest.approx(2 / (10 * 11))


def test_what_cannot_be_compared_passes_and_says_so():
    few = probe(rejected=[], defects=[])
    findings = {finding.name: finding for finding in judge(few, None, None, BOUNDS)}
    assert all(finding.passed for finding in findings.values())
    assert "not comparable" in findings["separation"].observed and "few labels" in findings["labelled"].observed


def test_a_probe_survives_json_even_with_scores_that_are_no_numbers():
    import json

    one = probe(kept=[1.0, math.inf, math.nan])
    again = Probe.of(json.loads(json.dumps(one.content(), allow_nan=False)))
    assert again.rejected == one.rejected and again.anomalous == one.anomalous
    assert [math.isfinite(score) for score in again.kept.values()] == [True, False, False]
