"""A decision threshold from scores of normal images, and how sure one can be of it.

Let s_(1) ≤ … ≤ s_(n) be scores of normal images their detector did not train on, exchangeable with those to come. With
k = ⌈(n+1)(1-α)⌉ a new normal image scores above s_(k) with probability at most α (split conformal prediction:
Papadopoulos et al., 2002; arXiv 1604.04173). That is a mean over calibration sets. For the one at hand the true
false-positive rate is a draw from Beta(n+1-k, k); and the true (1-α)-quantile lies between two order statistics whose
ranks follow from the binomial distribution, whatever the distribution of the scores (Conover, Practical Nonparametric
Statistics, section 3.2). Both want independent images: several views of one sample are not, and with such the intervals
are too narrow. Where k > n no score is high enough: the largest stands in, `attained` is False, and the rate that n
images do promise, 1/(n+1), is `promised_fpr`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llbnad.errors import ConfigError, DataError, percent_hint

CONFIDENCE = 0.95  # of all intervals
NORMAL_LABEL, DEFECT_LABEL = "normal", "defect"


@dataclass(frozen=True, eq=False)
class Threshold:
    """Scores above `value` are called defects."""

    value: float
    low: float | None  # confidence interval of the true quantile; None where n is too small to bound it
    high: float | None
    target_fpr: float  # α
    promised_fpr: float  # at most this share of normal images on average: α, or 1/(n+1) if that is larger
    fpr_low: float  # interval of the true false-positive rate at `value`
    fpr_high: float
    scores: np.ndarray  # (n,) float32, ascending: what it was calibrated on

    @property
    def n(self) -> int:
        """Number of calibration scores."""
        return len(self.scores)

    @property
    def attained(self) -> bool:
        """Whether n scores are enough for the target."""
        return self.promised_fpr <= self.target_fpr

    def at(self, target_fpr: float) -> "Threshold":
        """The threshold for another false-positive rate: the sensitivity knob."""
        return threshold_at(self.scores, target_fpr)

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """`normal` or `defect` for each of `scores` (N,)."""
        return np.where(np.asarray(scores) > self.value, DEFECT_LABEL, NORMAL_LABEL)

    def rates(self, scores: np.ndarray, anomalous: pd.Series) -> dict[str, float | None]:
        """False-positive rate and recall on labelled images; None where there is no image of that kind.

        Args:
            scores: (N,).
            anomalous: (N,) nullable boolean, <NA> for images without a label.
        """
        above = np.asarray(scores) > self.value
        shares: dict[str, float | None] = {}
        for name, label in (("fpr_at_threshold", False), ("recall_at_threshold", True)):
            chosen = (anomalous == label).fillna(False).to_numpy(bool)
            shares[name] = float(above[chosen].mean()) if chosen.any() else None
        return shares

    def describe(self) -> str:
        """One line for people."""
        line = f"threshold {self.value:.4f} for {self.target_fpr:.2%} false positives, from {self.n} images: "
        line += f"{self.fpr_low:.2%} to {self.fpr_high:.2%} at {CONFIDENCE:.0%} confidence"
        if not self.attained:
            needed = math.ceil(1 / self.target_fpr) - 1
            line += (
                f"; too few images for this target ({needed} are needed), so it is their largest score, "
                f"which promises {self.promised_fpr:.2%}"
            )
        return line

    def summary(self) -> dict[str, float | int | bool | None]:
        """All but the scores, as JSON values."""
        fields = ("value", "low", "high", "target_fpr", "promised_fpr", "fpr_low", "fpr_high", "n", "attained")
        return {name: getattr(self, name) for name in fields}

    @classmethod
    def restore(cls, summary: Mapping[str, Any], scores: np.ndarray) -> "Threshold":
        """The threshold that gave `summary`; everything follows from the scores and the target."""
        return threshold_at(scores, float(summary["target_fpr"]))


def threshold_at(scores: np.ndarray, target_fpr: float) -> Threshold:
    """The conformal threshold of out-of-fold scores of normal images.

    Args:
        scores: (n,) in any order, higher is more anomalous.
        target_fpr: α in (0, 1).

    Raises:
        ConfigError: the target is not in (0, 1).
        DataError: there is no score.
    """
    from scipy import stats

    if not 0 < target_fpr < 1:
        hint = percent_hint(target_fpr)
        raise ConfigError(f"the false-positive rate must be in (0, 1), got {target_fpr:g}{hint}")
    ordered = np.sort(np.asarray(scores, np.float32))
    n = len(ordered)
    if n == 0:
        raise DataError("a threshold needs at least 1 out-of-fold score, got none")
    # 1e-9: (n+1)(1-α) may be a whole number that floating point exceeds by a hair
    wanted = math.ceil((n + 1) * (1 - target_fpr) - 1e-9)
    k = min(max(wanted, 1), n)
    tail = (1 - CONFIDENCE) / 2
    first = int(stats.binom.ppf(tail, n, 1 - target_fpr))  # P(s_(first) ≤ quantile) ≥ 1 - tail
    last = int(stats.binom.ppf(1 - tail, n, 1 - target_fpr)) + 1
    fpr_low, fpr_high = stats.beta.ppf([tail, 1 - tail], n + 1 - k, k)
    return Threshold(
        value=float(ordered[k - 1]),
        low=float(ordered[first - 1]) if first >= 1 else None,
        high=float(ordered[last - 1]) if last <= n else None,
        target_fpr=target_fpr,
        promised_fpr=target_fpr if wanted <= n else 1 / (n + 1),
        fpr_low=float(fpr_low),
        fpr_high=float(fpr_high),
        scores=ordered,
    )
