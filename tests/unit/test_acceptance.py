"""Acceptance on analytic scores: a good successor passes, each kind of bad one is refused for its own reason."""

import math

import numpy as np
import pytest

from llbnad.acceptance import CHECKS, judge
from llbnad.config import Promotion
from llbnad.probe import Probe

BOUNDS = Promotion()
RANKS = np.linspace(1, 2, 40)


def probe(kept=RANKS, rejected=RANKS + 2, defects=RANKS + 2, kept_share=0.9, threshold=2.2):
    def named(prefix, scores):
        return {f"{prefix}{number:02d}": float(score) for number, score in enumerate(scores)}

    normals = named("n", RANKS)
    labelled = normals | named("d", defects)
    anomalous = {image_id: image_id.startswith("d") for image_id in labelled}
    return Probe(named("k", kept), named("r", rejected), labelled, anomalous, kept_share, threshold)


def refused(own, champion=None, challenger=None):
    return {finding.name for finding in judge(own, champion, challenger, BOUNDS) if not finding.passed}


def test_all_checks_are_judged_and_a_first_model_can_pass():
    findings = judge(probe(), None, None, BOUNDS)
    assert tuple(finding.name for finding in findings) == CHECKS
    assert all(finding.passed for finding in findings)


def test_scores_in_another_unit_but_the_same_order_are_accepted():
    other = probe(RANKS * 30, RANKS * 30 + 60, RANKS * 30 + 60, threshold=63)
    assert refused(other, probe(), other) == set()


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        ({"kept": [*RANKS[:-1], math.nan]}, {"finite_scores", "spread", "threshold", "separation", "agreement"}),
        ({"kept": np.full(40, 1.5)}, {"spread", "threshold", "agreement"}),
        ({"kept": RANKS[::-1]}, {"agreement"}),
        ({"rejected": RANKS}, {"separation"}),
        ({"defects": RANKS + 0.5}, {"labelled"}),
        ({"kept_share": 0.5}, {"kept_share"}),
        ({"threshold": 1.2}, {"threshold"}),
        ({"threshold": 9.0}, {"threshold"}),
    ],
)
def test_a_bad_successor_is_refused_for_its_own_reason(bad, reasons):
    assert refused(probe(**bad), probe(), probe(**bad)) == reasons


def test_what_cannot_be_compared_passes_and_says_so():
    few = probe(rejected=[], defects=[], threshold=None)
    findings = {finding.name: finding for finding in judge(few, None, None, BOUNDS)}
    assert all(finding.passed for finding in findings.values())
    assert "not comparable" in findings["separation"].observed and "few labels" in findings["labelled"].observed


def test_a_probe_survives_json_even_with_scores_that_are_no_numbers():
    import json

    one = probe(kept=[1.0, math.inf, math.nan])
    again = Probe.of(json.loads(json.dumps(one.content(), allow_nan=False)))
    assert again.rejected == one.rejected and again.anomalous == one.anomalous
    assert [math.isfinite(score) for score in again.kept.values()] == [True, False, False]
