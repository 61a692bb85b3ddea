"""The check that a new detector's threshold is sane: neither blind nor within the scores of normal images.

The threshold is compared with four things. With the body of its own calibration scores: the lower half of the scores
is out of reach of kept defects, so its spread says how far apart normal images lie. A threshold far above the body was
set by a defect that was kept, and finds nothing; a threshold inside the body calls normal images defects. With the
images that the final detector learnt: too many above it mean that calibration and detector do not fit each other. With
the highest score of an unseen image: a threshold far above it can never be reached. Scores of learnt images cannot show
that a threshold is too high, because a detector that knows its few images by heart gives them scores near 0. And with
labelled normal test images, where there are any: more of them above it than chance explains break its promise.
"""

import numpy as np

from llbnad.config import Promotion
from llbnad.model.threshold import Threshold
from llbnad.monitoring.finding import Finding, decided, skipped
from llbnad.monitoring.novelty import CHANCE, FEWEST_IMAGES, chance_of_alarms
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
    value, learnt = calibration.value, values(own.kept)
    unseen = np.concatenate([values(own.rejected), values(own.labelled)])
    share = float((learnt > value).mean()) if np.isfinite(learnt).all() and len(learnt) else 1.0
    passed = bool(np.isfinite(value)) and share <= calibration.fpr_high
    observed, expected = f"{value:.4f}, above it {share:.1%} of what was learnt", f"at most {calibration.fpr_high:.1%}"
    observed += "" if share <= calibration.fpr_high else " (too many)"
    normal = np.array([score for name, score in own.labelled.items() if not own.anomalous[name]])
    if len(normal):
        alarms = int((normal > value).sum())
        rank = int((calibration.scores <= value).sum())
        kept = not alarms or chance_of_alarms(alarms, len(normal), calibration.n, rank) > CHANCE
        passed = passed and kept
        observed += f"; above it {alarms} of the probe's {len(normal)} labelled normal test images"
        observed += f" ({alarms / len(normal):.1%}{'' if kept else ': more than it promises'})"
        expected += " and no more of normal test images than it promises"
    above = reach(calibration)
    low, high = bounds.min_threshold_reach, bounds.max_threshold_reach
    if above is None:
        observed += "; not compared with the body of the calibration scores, which are too few or have no spread"
    else:
        passed = passed and low <= above <= high
        observed += f"; {above:.1f} spreads above the body of the calibration scores"
        observed += " (blind: a kept defect may have set it)" if above > high else ""
        observed += " (it is inside the body)" if above < low else ""
        expected += f", {low:g} to {high:g} spreads"
    if len(unseen) >= FEWEST_IMAGES and np.isfinite(unseen).all():
        highest, middle = float(unseen.max()), float(np.median(learnt))
        limit = highest + bounds.threshold_slack * max(0.0, highest - middle)
        passed, expected = passed and value <= limit, f"{expected}, and a threshold of at most {limit:.4f}"
    return decided(NAME, passed, observed, expected)


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
