"""A decision threshold from scores of normal images, and its confidence intervals.

Let s_(1) ≤ … ≤ s_(n) be scores of normal images that their detector did not train on, exchangeable with the scores of
future normal images. With k = ⌈(n+1)(1-α)⌉, a new normal image scores above s_(k) with probability at most α (split
conformal prediction: Papadopoulos et al., 2002; arXiv 1604.04173). This is a mean over calibration sets. For the
calibration set at hand, the true false-positive rate is a draw from Beta(n+1-k, k). The true (1-α)-quantile lies
between two order statistics whose ranks follow from the binomial distribution, whatever the distribution of the scores
(Conover, Practical Nonparametric Statistics, section 3.2).

Both statements assume independent images. Several views of one sample are not independent, so they make the intervals
too narrow. If k > n, no score is high enough for α. Then the largest score is taken for s_(k), `attained` is False, and
`promised_fpr` is the rate that n images can promise, 1/(n+1).

Defects that were kept are among the scores. In a small set they are s_(k) itself, and a detector with such a threshold
finds nothing. The threshold is therefore the smaller of s_(k) and a bound that a minority of defects cannot move
(`llbnad.model.robust_bound`). Where the bound decides, the promise is what the scores show: the share of them above the
bound, with the interval of Clopper and Pearson (1934). Kept defects count as false positives there, so the true rate
is lower if there are any.

`unsure_low` and `unsure_high` say how far another draw of calibration images could move the threshold. Where the bound
decides, they are the percentiles of 400 bootstrap samples of the whole rule. Where s_(k) decides, they are the order
statistics around the quantile; if n is too small for the upper one, the bound takes its place, and without a bound
the interval is as wide above the threshold as below. Scores inside are called `unsure`. Rates at the threshold always
count scores above `value`, whatever the label.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from llbnad.config import Bound
from llbnad.errors import ConfigError, DataError, percent_hint
from llbnad.model.bursts import Bursts
from llbnad.model.robust_bound import robust_bound

CONFIDENCE = 0.95  # level of all intervals
RESAMPLES = 400  # of the bootstrap
CHANCE = 0.01  # false alarms with a lower probability than this are no accident
TWICE = 2  # times the target: a rate above is said
NORMAL_LABEL, UNSURE_LABEL, DEFECT_LABEL = "normal", "unsure", "defect"


class FalsePositives(NamedTuple):
    """Scores of normal images above a threshold."""

    alarms: int
    images: int  # normal images that it was tried on, at least 1


@dataclass(frozen=True, eq=False)
class Threshold:
    """A decision threshold: scores above `value` are called defects, and scores close to it `unsure`."""

    value: float
    low: float | None  # lower end of the interval of the true quantile; None if n is too small to bound it
    high: float | None  # upper end
    target_fpr: float  # α
    promised_fpr: float  # share of normal images above `value` to expect, at most
    fpr_low: float  # lower end of the interval of the true false-positive rate at `value`
    fpr_high: float  # upper end
    decided_by: Literal["conformal", "bound"]  # which of the two is `value`
    bound: float | None  # the robust bound; None if it is turned off, or the scores show no body
    unsure_low: float  # lower end of the scores called unsure, at most `value`
    unsure_high: float  # upper end, at least `value`
    unsure: bool  # whether scores from `unsure_low` to `unsure_high` are called unsure
    scores: np.ndarray  # (n,) float32, ascending: the calibration scores
    bursts: Bursts | None = None  # whether images next to each other are alike; None if nobody asked

    @property
    def n(self) -> int:
        """Number of calibration scores."""
        return len(self.scores)

    @property
    def attained(self) -> bool:
        """Whether the promised rate is at most the target."""
        return self.promised_fpr <= self.target_fpr

    def at(self, target_fpr: float) -> "Threshold":
        """Return the threshold for another false-positive rate, from the same scores. The bound moves with the rate.

        Raises:
            ConfigError: the rate is not in (0, 1).
        """
        moved = threshold_at(self.scores, target_fpr, "none" if self.bound is None else "robust", self.unsure)
        return replace(moved, bursts=self.bursts)

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """Return `normal`, `unsure` or `defect` for each of `scores` (N,)."""
        scores = np.asarray(scores)
        found = np.where(scores > self.value, DEFECT_LABEL, NORMAL_LABEL)
        return np.where(self.is_unsure(scores), UNSURE_LABEL, found) if self.unsure else found

    def is_unsure(self, scores: np.ndarray) -> np.ndarray:
        """Return whether each of `scores` (N,) lies in the interval of the threshold."""
        scores = np.asarray(scores)
        return np.asarray((scores >= self.unsure_low) & (scores <= self.unsure_high))

    def rates(self, scores: np.ndarray, anomalous: pd.Series) -> dict[str, float | None]:
        """Return false-positive rate and recall on labelled images, and the share of all images that is unsure.

        The rates count scores above `value`, unsure ones too. A rate is None if there is no image of its kind, and the
        share of unsure images is None if scores are never called unsure.

        Args:
            scores: (N,) image scores.
            anomalous: (N,) nullable boolean, <NA> for images without a label.
        """
        above = np.asarray(scores) > self.value
        unsure = self.is_unsure(scores).mean() if self.unsure and len(above) else None
        shares: dict[str, float | None] = {"unsure_share": None if unsure is None else float(unsure)}
        for name, label in (("fpr_at_threshold", False), ("recall_at_threshold", True)):
            chosen = (anomalous == label).fillna(False).to_numpy(bool)
            shares[name] = float(above[chosen].mean()) if chosen.any() else None
        return shares

    def chance_of_alarms(self, alarms: int, count: int) -> float:
        """Return the probability of at least `alarms` scores above `value` among `count` new scores of normal images.

        The new scores are taken to be exchangeable with the calibration scores. The beta-binomial distribution is then
        exact for any continuous distribution of scores.
        """
        from scipy.stats import betabinom

        rank = int((self.scores <= self.value).sum())
        return float(betabinom.sf(alarms - 1, count, self.n + 1 - rank, rank)) if alarms else 1.0

    def breaks(self, alarms: int, count: int) -> bool:
        """Return whether `alarms` false positives among `count` normal images are more than the promise and chance."""
        return alarms > self.fpr_high * count and self.chance_of_alarms(alarms, count) <= CHANCE

    def caption(self) -> str:
        """Return a short text for a picture: where scores are called defects, and where unsure."""
        if not self.unsure:
            return f"called a defect above {self.value:.3f}"
        between = f"unsure from {self.unsure_low:.3f} to {self.unsure_high:.3f}"
        return f"called a defect above {self.unsure_high:.3f}, {between} (threshold {self.value:.3f})"

    def describe(self) -> str:
        """Describe the threshold in one line: what it promises, beside what was asked for, and which rule decided."""
        promise = f"for {self.target_fpr:.2%} false positives"
        if not self.attained:
            promise = f"expects {self.promised_fpr:.2%} false positives, where {self.target_fpr:.2%} were asked for"
        line = f"threshold {self.value:.4f} {promise}, from {self.n} images: "
        interval = f"{self.fpr_low:.2%} to {self.fpr_high:.2%} at {CONFIDENCE:.0%} confidence"
        if self.decided_by == "bound":
            above = int((self.scores > self.value).sum())
            return (
                f"{line}the bound of their body, because the largest scores stand apart; "
                f"above it {above} of {self.n} ({interval}), fewer if these are defects"
            )
        line += interval
        if not self.attained:
            needed = math.ceil(1 / self.target_fpr) - 1
            line += f"; too few images for this target ({needed} are needed), so it is their largest score"
        elif self.fpr_high > TWICE * self.target_fpr:
            line += f"; {images_needed(self.target_fpr)} images would keep the rate below {TWICE * self.target_fpr:.2%}"
        return line

    def summary(self) -> dict[str, float | int | bool | str | dict[str, int] | None]:
        """Return everything but the scores, as JSON values."""
        content = {**{name: getattr(self, name) for name in STORED}, "n": self.n, "attained": self.attained}
        return content if self.bursts is None else {**content, "bursts": self.bursts.content()}

    @classmethod
    def restore(cls, summary: Mapping[str, Any], scores: np.ndarray) -> "Threshold":
        """Rebuild a threshold from the result of `summary` and its scores.

        A summary of release 0.1 knows neither bound nor unsure scores. Its threshold stays what it was, without them.
        """
        if "decided_by" not in summary:
            return threshold_at(scores, float(summary["target_fpr"]), "none", unsure=False)
        bursts = Bursts.restore(summary.get("bursts"))
        return cls(**{name: summary[name] for name in STORED}, scores=scores, bursts=bursts)


STORED = tuple(one.name for one in fields(Threshold) if one.name not in ("scores", "bursts"))


def images_needed(target_fpr: float) -> int:
    """Return how many calibration scores keep the true false-positive rate below twice the target, at `CONFIDENCE`.

    The target itself is a mean over calibration sets and takes fewer: 99 for 1 %, where this takes 599.
    """
    from scipy import stats

    for above in count(1):  # scores above the threshold, which are α (n+1) of n
        images = math.ceil(above / target_fpr - 1e-9) - 1
        if images and stats.beta.ppf((1 + CONFIDENCE) / 2, above, images + 1 - above) <= TWICE * target_fpr:
            return images
    raise AssertionError("the interval narrows without end")


def threshold_at(scores: np.ndarray, target_fpr: float, bound: Bound = "robust", unsure: bool = True) -> Threshold:
    """Return the threshold for out-of-fold scores of images that are normal but for a minority.

    Args:
        scores: (n,) in any order, higher is more anomalous.
        target_fpr: α in (0, 1).
        bound: `robust` limits the threshold by the body of the scores; `none` leaves it conformal.
        unsure: call scores close to the threshold unsure.

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
    # 1e-9: floating point may put (n+1)(1-α) just above a whole number
    wanted = math.ceil((n + 1) * (1 - target_fpr) - 1e-9)
    k = min(max(wanted, 1), n)
    tail = (1 - CONFIDENCE) / 2
    first = int(stats.binom.ppf(tail, n, 1 - target_fpr))  # P(s_(first) ≤ quantile) ≥ 1 - tail
    last = int(stats.binom.ppf(1 - tail, n, 1 - target_fpr)) + 1
    low = float(ordered[first - 1]) if first >= 1 else None
    high = float(ordered[last - 1]) if last <= n else None
    conformal = float(ordered[k - 1])
    limit = robust_bound(ordered, target_fpr) if bound == "robust" else None

    if limit is not None and limit < conformal:
        value, above = limit, int((ordered > limit).sum())
        promised = above / n
        fpr_low, fpr_high = stats.beta.ppf(tail, above, n + 1 - above), stats.beta.ppf(1 - tail, above + 1, n - above)
        unsure_low, unsure_high = _bootstrap(ordered, k, target_fpr, tail)
    else:
        value, promised = conformal, target_fpr if wanted <= n else 1 / (n + 1)
        fpr_low, fpr_high = stats.beta.ppf([tail, 1 - tail], n + 1 - k, k)
        unsure_low = float(ordered[0]) if low is None else low
        mirrored = value + (value - unsure_low)
        unsure_high = high if high is not None else limit if limit is not None else mirrored
    return Threshold(
        value=value,
        low=low,
        high=high,
        target_fpr=target_fpr,
        promised_fpr=promised,
        fpr_low=float(fpr_low),
        fpr_high=float(fpr_high),
        decided_by="conformal" if value == conformal else "bound",
        bound=limit,
        unsure_low=min(unsure_low, value),
        unsure_high=max(unsure_high, value),
        unsure=unsure,
        scores=ordered,
    )


def _bootstrap(ordered: np.ndarray, k: int, target_fpr: float, tail: float) -> tuple[float, float]:
    """Return the `tail` and 1 - `tail` percentiles of the rule min(s_(k), bound) over resampled scores."""
    drawn = np.sort(np.random.default_rng(0).choice(ordered, (RESAMPLES, len(ordered))), axis=1)
    found = [
        min(float(sample[k - 1]), math.inf if limit is None else limit)
        for sample in drawn
        for limit in (robust_bound(sample, target_fpr),)
    ]
    low, high = np.quantile(found, [tail, 1 - tail]).astype(np.float32)
    return float(low), float(high)
