"""The lower half of contaminated scores: its middle and its spread.

Most images are normal, so the lower half of the scores is normal, however high the defects score. Its spread is
(q40 - q10) / 1.03: the standard deviation, if the normal values follow a normal distribution. Scores are compared as
logarithms, because distances spread by factors, not by differences.
"""

from dataclasses import dataclass

import numpy as np

LOW, MIDDLE, UPPER = 0.1, 0.4, 0.7  # quantiles
SPAN = 1.03  # standard deviations between these two quantiles of a normal distribution


@dataclass(frozen=True)
class LowerHalf:
    """Middle and spread of the lower half of scores, on the scale that they are compared on."""

    middle: float  # the 40 % quantile
    spread: float  # the standard deviation that the lower half shows; 0 if its scores are equal
    logarithmic: bool  # whether both are of the logarithms of the scores

    def at(self, steps: float) -> float:
        """Return the score that lies `steps` spreads above the middle; it may be infinite."""
        with np.errstate(over="ignore"):
            found = self.middle + steps * self.spread
            return float(np.exp(found) if self.logarithmic else found)

    def steps(self, score: float) -> float:
        """Return by how many spreads `score` lies above the middle; infinite if there is no spread."""
        if self.logarithmic and score <= 0:
            return -np.inf
        distance = (np.log(score) if self.logarithmic else score) - self.middle
        return float(distance / self.spread) if self.spread > 0 else float(np.copysign(np.inf, distance))


def reach(count: int, beyond: float) -> float:
    """Return the place, in spreads above the middle, above which `beyond` of `count` normal scores are expected.

    The place is that of a normal distribution, and the median at the lowest.
    """
    from scipy.special import ndtri

    return float(ndtri(max(0.5, 1 - beyond / count)) - ndtri(MIDDLE))


def widening(scores: np.ndarray, body: LowerHalf) -> float:
    """Return by what factor `scores` (N,) spread wider just above the middle than below it, at least 1.

    It is measured up to the 70 % quantile. Defects among the highest scores count there, but not how high they score.
    """
    if body.spread <= 0:
        return 1.0
    return max(1.0, body.steps(float(np.quantile(np.asarray(scores, np.float64), UPPER))) / reach(10, 10 * (1 - UPPER)))


def lower_half(scores: np.ndarray) -> LowerHalf:
    """Return the lower half of `scores` (N,), in any order. Scores that are not all positive have no logarithms."""
    values = np.asarray(scores, np.float64)
    logarithmic = bool(values.min() > 0)
    low, middle = np.quantile(np.log(values) if logarithmic else values, (LOW, MIDDLE))
    return LowerHalf(float(middle), float((middle - low) / SPAN), logarithmic)
