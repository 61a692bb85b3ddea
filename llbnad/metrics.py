"""Exact ranking metrics for images and pixels, by sorting instead of thresholds.

With FPR_i the share of normal scores above an anomalous score i (ties count half): AUROC = mean(1 - FPR_i). For AUPRO
(area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3), each 8-connected defect region
contributes the mean over its pixels of max(0, 0.3 - FPR_i) / 0.3, and regions count alike whatever their size.

References: Bergmann et al., "Uninformed Students", CVPR 2020 (AUPRO); Davis & Goadrich, ICML 2006 (average precision).
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

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
    ap, f1_max = _precision_summary(normal, anomalous)
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
    """Collects pixel scores image by image; defect regions are found in each mask as it comes.

    Memory: 4 bytes a normal pixel, 12 a defect pixel; some 40 a pixel while `result` sorts them.
    """

    def __init__(self) -> None:
        self._normal: list[np.ndarray] = []
        self._defect: list[np.ndarray] = []
        self._region: list[np.ndarray] = []  # number of the region of each defect pixel
        self._regions = 0

    def add(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Add an image's scores (H, W) and its mask (H, W) bool.

        Raises:
            ValueError: the shapes differ.
        """
        if scores.shape != mask.shape:
            raise ValueError(f"scores {scores.shape} and mask {mask.shape} differ in shape")
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        self._normal.append(scores[~mask].astype(np.float32))
        self._defect.append(scores[mask].astype(np.float32))
        self._region.append(labels[mask].astype(np.int64) - 1 + self._regions)
        self._regions += count

    def result(self) -> PixelMetrics | None:
        """Exact metrics over all pixels added; None without a normal or without a defect pixel."""
        normal, defect = (np.concatenate(parts or [np.empty(0, np.float32)]) for parts in (self._normal, self._defect))
        if not len(normal) or not len(defect):
            return None
        rates = false_positive_rates(normal, defect)
        overlap = np.clip(MAX_FPR - rates, 0, None) / MAX_FPR
        region = np.concatenate(self._region)
        per_region = np.bincount(region, overlap, self._regions) / np.bincount(region, minlength=self._regions)
        ap, f1_max = _precision_summary(normal, defect)
        return PixelMetrics(float(np.mean(1 - rates)), ap, f1_max, float(per_region.mean()))


def _counts(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anomalous and normal scores at or above each distinct score, highest first."""
    scores = np.concatenate([normal, anomalous])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the end of each run of equal scores
    true = np.cumsum(order >= len(normal))[last]
    return true, np.flatnonzero(last) + 1 - true


def _precision_summary(normal: np.ndarray, anomalous: np.ndarray) -> tuple[float, float]:
    """Average precision and the largest F1."""
    true, false = _counts(normal, anomalous)
    precision = true / (true + false)
    f1 = 2 * true / (true + false + len(anomalous))
    return float(np.sum(np.diff(true, prepend=0) * precision) / len(anomalous)), float(f1.max())
