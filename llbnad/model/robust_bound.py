"""A bound above which scores leave the body of their distribution. A minority of defects cannot move it.

The bound for 1 % false positives lies `MARGIN` spreads above the place where the largest of n normal scores is
expected: 2.5 spreads above the lower half's middle for 40 scores, 3.0 for 160, 3.6 for 1,000. A spread is that of the
lower half of the scores, or that of the scores just above the middle where they spread wider
(`llbnad.utils.lower_half`). It is no estimate of a rate: it stops the scores of kept defects from deciding the
threshold. benchmarks/young_line.yaml measures what it does; docs/results.md says on what the margin was chosen. For
another rate, the distance shrinks or grows as the distance of the normal distribution's quantile does.
"""

import numpy as np

from llbnad.utils.lower_half import MIDDLE, lower_half, reach, widening

MARGIN = 0.25  # spreads from the largest score that is expected to the bound for REFERENCE_FPR
REFERENCE_FPR = 0.01
FEWEST_SCORES = 10  # fewest distinct scores that show a body


def robust_bound(scores: np.ndarray, target_fpr: float = REFERENCE_FPR) -> float | None:
    """Return the bound of the body of `scores`, or None where the scores show no body.

    Args:
        scores: (n,) in any order, higher is more anomalous. Up to 30 % of them may be defects.
        target_fpr: rate of false positives that the bound is for, in (0, 1). The bound never rises with the rate, and
            is never below the 40 % quantile.

    Returns:
        the bound in the unit of the scores, rounded to float32; None if fewer than `FEWEST_SCORES` are distinct, or the
        10 % and 40 % quantiles are equal.
    """
    from scipy.special import ndtri

    if len(np.unique(scores)) < FEWEST_SCORES:
        return None
    body = lower_half(scores)
    if body.spread <= 0:
        return None
    wanted, reference = ndtri([1 - target_fpr, 1 - REFERENCE_FPR]) - ndtri(MIDDLE)
    steps = (reach(len(scores), 1) + MARGIN) * widening(scores, body) * max(0.0, wanted / reference)
    with np.errstate(over="ignore"):
        found = np.float32(body.at(steps))
    return float(found) if np.isfinite(found) else None
