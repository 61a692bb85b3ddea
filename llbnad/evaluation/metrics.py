"""Exact ranking metrics for images and pixels, by sorting instead of thresholds.

With FPR_i the share of normal scores above an anomalous score i (ties count half): AUROC = mean(1 - FPR_i). For AUPRO
(area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3), each 8-connected defect region
contributes the mean over its pixels of max(0, 0.3 - FPR_i) / 0.3, and regions count alike whatever their size.

References: Bergmann et al., "Uninformed Students", CVPR 2020 (AUPRO); Davis & Goadrich, ICML 2006 (average precision).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from llbnad.utils.working_memory import block_bytes

MAX_FPR = 0.3
EIGHT_CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Ranking:
    """How well scores rank anomalous above normal; all in [0, 1]."""

    auroc: float
    ap: float  # average precision
    f1_max: float  # F1 at the best threshold


@dataclass(frozen=True)
class PixelMetrics(Ranking):
    """The same of pixels, and AUPRO."""

    aupro: float


def ranking(normal: np.ndarray, anomalous: np.ndarray) -> Ranking | None:
    """Rank metrics of the scores of normal (n,) and anomalous (m,) images; None if there are none of a kind."""
    if not len(normal) or not len(anomalous):
        return None
    ap, f1_max = _precision_summary(*_counts(normal, anomalous))
    return Ranking(float(np.mean(1 - false_positive_rates(normal, anomalous))), ap, f1_max)


def false_positive_rates(normal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Share of `normal` (n,) above each of `scores` (m,), ties counted half: (m,) float64."""
    ordered = np.sort(normal)
    above = len(ordered) - np.searchsorted(ordered, scores, side="right")
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (above + at_least) / (2 * len(ordered))


def roc_curve(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct score, from (0, 0) to (1, 1)."""
    true, false = _counts(normal, anomalous)
    return np.append(0, false / len(normal)), np.append(0, true / len(anomalous))


def pr_curve(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every distinct score, highest score first."""
    true, false = _counts(normal, anomalous)
    return true / len(anomalous), true / (true + false)


class PixelScores:
    """Exact pixel metrics of a test set that is gone through twice, in the memory of its defect pixels.

    All that normal pixels tell is how many of them lie above each defect pixel. So `add_defects` comes first, for every
    image with a mask: it finds the defect regions. Then `add_normal`, for every image, only counts.

    Memory: some 100 bytes a defect pixel, and a block of normal ones.
    """

    def __init__(self) -> None:
        self._defect: list[np.ndarray] = []
        self._region: list[np.ndarray] = []  # number of the region of each defect pixel
        self._regions = 0
        self._levels = np.empty(0, np.float32)  # (L,) distinct scores of defect pixels, ascending
        self._below = self._up_to = np.empty(0, np.int64)  # (L,) normal pixels counted below a level, and up to it
        self._normal = 0  # pixels counted
        self._waiting: list[np.ndarray] = []  # normal pixels to be counted
        self._counting = False  # the levels are fixed

    def add_defects(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Add the defect pixels of an image's scores (H, W) and its mask (H, W) bool.

        Raises:
            ValueError: the shapes differ.
            RuntimeError: normal pixels were added before, or the result was asked for.
        """
        if self._counting:
            raise RuntimeError("add_defects came after add_normal or result: add the defects of all images first")
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        self._defect.append(_chosen(scores, mask))
        self._region.append(labels[mask].astype(np.int32) - 1 + self._regions)
        self._regions += count

    def add_normal(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Add the normal pixels of an image's scores (H, W) and its mask (H, W) bool, after the defects of all images.

        Raises:
            ValueError: the shapes differ.
        """
        self._waiting.append(_chosen(scores, ~mask))
        self._counting = True
        if sum(map(len, self._waiting)) >= max(block_bytes() // 4, len(self._levels)):
            self._count()

    def result(self) -> PixelMetrics | None:
        """Exact metrics over all pixels added; None without a normal or without a defect pixel."""
        self._count()
        if not self._normal or not len(self._levels):
            return None
        defect, region = np.concatenate(self._defect), np.concatenate(self._region)
        level = np.searchsorted(self._levels, defect)
        at_least, above = self._normal - self._below, self._normal - self._up_to
        rates = ((above + at_least) / (2 * self._normal))[level]  # of false positives; ties count half
        overlap = np.clip(MAX_FPR - rates, 0, None) / MAX_FPR
        per_region = np.bincount(region, overlap, self._regions) / np.bincount(region, minlength=self._regions)
        true = np.bincount(level)[::-1].cumsum()  # found at a level, highest first
        ap, f1_max = _precision_summary(true, at_least[::-1])
        return PixelMetrics(float(np.mean(1 - rates)), ap, f1_max, float(per_region.mean()))

    def _count(self) -> None:
        self._counting = True
        if self._defect and not len(self._levels):
            self._levels = np.unique(np.concatenate(self._defect))
            self._below = self._up_to = np.zeros(len(self._levels), np.int64)
        normal = np.sort(np.concatenate([np.empty(0, np.float32), *self._waiting]))
        self._below = self._below + np.searchsorted(normal, self._levels, side="left")
        self._up_to = self._up_to + np.searchsorted(normal, self._levels, side="right")
        self._normal += len(normal)
        self._waiting.clear()


def _chosen(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    if scores.shape != chosen.shape:
        raise ValueError(f"scores {scores.shape} and mask {chosen.shape} differ in shape")
    return scores[chosen].astype(np.float32)


def _counts(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anomalous and normal scores at or above each distinct score, highest first."""
    scores = np.concatenate([normal, anomalous])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the end of each run of equal scores
    true = np.cumsum(order >= len(normal))[last]
    return true, np.flatnonzero(last) + 1 - true


def _precision_summary(true: np.ndarray, false: np.ndarray) -> tuple[float, float]:
    """Average precision and the largest F1, of the counts at or above each score at which something is found."""
    precision = true / (true + false)
    f1 = 2 * true / (true + false + true[-1])
    return float(np.sum(np.diff(true, prepend=0) * precision) / true[-1]), float(f1.max())
