"""A bound above which scores leave the body of their distribution. A minority of defects cannot move it.

The lower half of the scores of a contaminated set is normal. Its spread s = (q40 - q10) / 1.03, from the quantiles of
the logarithms, is the standard deviation if the normal scores are log-normal. The bound for 1 % false positives is
exp(q40 + 3.2 · s), about 2.9 standard deviations above the median, where a log-normal set has 0.2 % of its scores. For
another rate, the distance from q40 shrinks or grows as the distance of the normal distribution's quantile does.

If a score is not positive, it has no logarithm, and the same formula is used on the scores themselves.
"""

import numpy as np

LOW, MIDDLE = 0.1, 0.4  # quantiles of the body
SPAN = 1.03  # standard deviations between these two quantiles of a normal distribution
STEPS = 3.2  # standard deviations from the middle quantile to the bound for REFERENCE_FPR
REFERENCE_FPR = 0.01
FEWEST = 10  # fewest distinct scores that show a body


def robust_bound(scores: np.ndarray, target_fpr: float = REFERENCE_FPR) -> float | None:
    """Return the bound of the body of `scores`, or None where the scores show no body.

    Args:
        scores: (n,) in any order, higher is more anomalous. Up to half of them may be defects.
        target_fpr: rate of false positives that the bound is for, in (0, 1). The bound never rises with the rate, and
            is never below the 40 % quantile.

    Returns:
        the bound in the unit of the scores, rounded to float32; None if fewer than `FEWEST` scores are distinct, or the
        10 % and 40 % quantiles are equal.
    """
    from scipy.special import ndtri

    values = np.asarray(scores, np.float64)
    if len(np.unique(values)) < FEWEST:
        return None
    has_logarithms = bool(values.min() > 0)
    low, middle = np.quantile(np.log(values) if has_logarithms else values, (LOW, MIDDLE))
    if low == middle:
        return None
    reach, reference = ndtri([1 - target_fpr, 1 - REFERENCE_FPR]) - ndtri(MIDDLE)
    steps = STEPS * max(0.0, reach / reference)
    bound = middle + steps * (middle - low) / SPAN
    with np.errstate(over="ignore"):
        found = np.float32(np.exp(bound) if has_logarithms else bound)
    return float(found) if np.isfinite(found) else None
