"""The check that a new detector's threshold is sane: neither blind nor within the scores of normal images.

The threshold is compared with four things. With the body of its own calibration scores: the lower half of the scores
is out of reach of kept defects, so its spread says how far apart normal images lie. A threshold far above the body was
set by a defect that was kept, and finds nothing; a threshold inside the body calls normal images defects. With the
images that the final detector learnt: too many above it mean that calibration and detector do not fit each other. With
the highest score of an unseen image: a threshold far above it can never be reached. Scores of learnt images cannot show
that a threshold is too high, because a detector that knows its few images by heart gives them scores near 0. And with
labelled normal test images, where there are any: more of them above it than chance explains break its promise.
"""

from typing import NamedTuple

import numpy as np

from llbnad.config import Promotion
from llbnad.model.threshold import Threshold
from llbnad.monitoring.finding import Finding, decided, skipped
from llbnad.monitoring.novelty import FEWEST_IMAGES
from llbnad.monitoring.probe import Probe, values
from llbnad.utils.lower_half import lower_half, widening

NAME = "threshold"


def threshold(calibration: Threshold | None, own: Probe, bounds: Promotion) -> Finding:
    """Check the threshold against the body of its calibration scores, against learnt images and against unseen ones.

    Args:
        calibration: threshold of the new detector; None if it has no threshold.
        own: scores of the new detector on images of its own choice.
        bounds: the limits.
    """
    if calibration is None:
        return skipped(NAME, "the model has no threshold", "none, or a sane one")
    parts = [
        _learnt(calibration, own),
        _normal_tests(calibration, own),
        _body(calibration, bounds),
        _unseen(calibration, own, bounds),
    ]
    compared = [part for part in parts if part is not None]
    passed = all(part.passed for part in compared)
    told = compared if passed else [part for part in compared if not part.passed]
    several = len(told) > 1
    observed = [
        f"{one.observed} (allowed: {one.expected})" if several and one.expected else one.observed for one in told
    ]
    expected = "each of them as allowed" if several else told[0].expected
    return decided(NAME, passed, f"threshold {calibration.value:.4f}: {'; '.join(observed)}", expected)


class _Part(NamedTuple):
    """One comparison of the threshold."""

    passed: bool
    observed: str
    expected: str


def _learnt(calibration: Threshold, own: Probe) -> _Part:
    learnt = values(own.kept)
    share = float((learnt > calibration.value).mean()) if np.isfinite(learnt).all() and len(learnt) else 1.0
    passed = bool(np.isfinite(calibration.value)) and share <= calibration.fpr_high
    observed = f"calls {share:.1%} of what was learnt defects{' (too many)' if share > calibration.fpr_high else ''}"
    return _Part(passed, observed, f"at most {calibration.fpr_high:.1%}")


def _normal_tests(calibration: Threshold, own: Probe) -> _Part | None:
    normal = np.array([score for name, score in own.labelled.items() if not own.anomalous[name]])
    if not len(normal):
        return None
    alarms = int((normal > calibration.value).sum())
    passed = not calibration.breaks(alarms, len(normal))
    more = "" if passed else ": more than it promises"
    counts = f"{alarms} of the probe's {len(normal)} labelled normal test images"
    observed = f"calls {counts} defects ({alarms / len(normal):.1%}{more})"
    promise = f"the upper end of its promise of {calibration.promised_fpr:.1%}"
    return _Part(passed, observed, f"at most {calibration.fpr_high:.1%}, {promise}; chance may add to it")


def _body(calibration: Threshold, bounds: Promotion) -> _Part:
    above, low, high = reach(calibration), bounds.min_threshold_reach, bounds.max_threshold_reach
    if above is None:
        said = "not compared with the body of the calibration scores, which are too few or have no spread"
        return _Part(True, said, "")
    observed = f"{above:.1f} spreads above the body of the calibration scores"
    observed += " (blind: a kept defect may have set it)" if above > high else ""
    observed += " (it is inside the body)" if above < low else ""
    return _Part(low <= above <= high, observed, f"{low:g} to {high:g} spreads")


def _unseen(calibration: Threshold, own: Probe, bounds: Promotion) -> _Part | None:
    unseen = np.concatenate([values(own.rejected), values(own.labelled)])
    if len(unseen) < FEWEST_IMAGES or not np.isfinite(unseen).all():
        return None
    highest, middle = float(unseen.max()), float(np.median(values(own.kept)))
    limit = highest + bounds.threshold_slack * max(0.0, highest - middle)
    observed = f"the highest score of an unseen image is {highest:.4f}"
    return _Part(calibration.value <= limit, observed, f"a threshold of at most {limit:.4f}")


def reach(calibration: Threshold) -> float | None:
    """Return how far the threshold lies above the body of its calibration scores, in spreads of the body.

    The body is the lower half of the scores, which kept defects do not reach. A spread is as `robust_bound` takes it.

    Returns:
        the distance, or None if there are fewer than `FEWEST_IMAGES` scores, or those of the body do not differ.
    """
    if len(calibration.scores) < FEWEST_IMAGES:
        return None
    body = lower_half(calibration.scores)
    return body.steps(calibration.value) / widening(calibration.scores, body) if body.spread > 0 else None
