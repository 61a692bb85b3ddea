"""Exact ranking metrics for images and pixels, by sorting instead of thresholds.

Let FPR_i be the share of normal scores above an anomalous score i, where ties count half. Then AUROC = mean(1 - FPR_i).
AUPRO is the area under the per-region overlap up to a false-positive rate of 0.3, divided by 0.3. Each 8-connected
defect region contributes the mean of max(0, 0.3 - FPR_i) / 0.3 over its pixels. All regions weigh alike, whatever their
size.

scikit-learn has the metrics of images as well, and is not used: in 200 random cases its average precision and AUROC had
other last digits in more than half, and the pixels' metrics need counts that it does not give.

References: Bergmann et al., "Uninformed Students", CVPR 2020 (AUPRO); Davis & Goadrich, ICML 2006 (average precision).
"""

from dataclasses import dataclass

import numpy as np

from llbnad.utils.working_memory import block_bytes

MAX_FPR = 0.3
EIGHT_CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Ranking:
    """How well scores rank anomalous above normal. All values lie in [0, 1]."""

    auroc: float
    ap: float  # average precision
    f1_max: float  # F1 at the best threshold


@dataclass(frozen=True)
class PixelMetrics(Ranking):
    """The same metrics over pixels, and AUPRO. All values lie in [0, 1]."""

    aupro: float


def ranking(normal: np.ndarray, anomalous: np.ndarray) -> Ranking | None:
    """Return the metrics of the scores of normal (n,) and anomalous (m,) images, or None if one kind is missing."""
    if not len(normal) or not len(anomalous):
        return None
    ap, f1_max = _precision_summary(*_counts(normal, anomalous))
    return Ranking(float(np.mean(1 - false_positive_rates(normal, anomalous))), ap, f1_max)


def false_positive_rates(normal: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the share of `normal` (n,) above each of `scores` (m,), (m,) float64. Ties count half."""
    ordered = np.sort(normal)
    above = len(ordered) - np.searchsorted(ordered, scores, side="right")
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (above + at_least) / (2 * len(ordered))


def roc_curve(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates at every distinct score, from (0, 0) to (1, 1)."""
    true, false = _counts(normal, anomalous)
    return np.append(0, false / len(normal)), np.append(0, true / len(anomalous))


def pr_curve(normal: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision at every distinct score, highest score first."""
    true, false = _counts(normal, anomalous)
    return true / len(anomalous), true / (true + false)


class PixelScores:
    """Exact pixel metrics of a test set, in two passes over its images.

    The metrics need only the number of normal pixels above each defect pixel. The first pass calls `add_defects` for
    every image with a mask; this finds the defect regions. The second pass calls `add_normal` for every image; this
    only counts.

    Memory: about 100 bytes per defect pixel, and one block of normal pixels.
    """

    def __init__(self) -> None:
        self._defect: list[np.ndarray] = []
        self._region: list[np.ndarray] = []  # index of the region of each defect pixel
        self._regions = 0
        self._levels = np.empty(0, np.float32)  # (L,) distinct scores of defect pixels, ascending
        self._below = self._up_to = np.empty(0, np.int64)  # (L,) normal pixels below a level, and at or below it
        self._normal = 0  # normal pixels counted so far
        self._waiting: list[np.ndarray] = []  # scores of normal pixels that are not counted yet
        self._counting = False  # the levels are fixed

    def add_defects(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Add the defect pixels of an image's scores (H, W) and its mask (H, W) bool.

        Raises:
            ValueError: the shapes differ.
            RuntimeError: normal pixels were added before, or the result was asked for.
        """
        from scipy import ndimage

        if self._counting:
            raise RuntimeError("add_defects came after add_normal or result: add the defects of all images first")
        labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
        self._defect.append(_chosen(scores, mask))
        self._region.append(labels[mask].astype(np.int32) - 1 + self._regions)
        self._regions += count

    def add_normal(self, scores: np.ndarray, mask: np.ndarray) -> None:
        """Add the normal pixels of an image's scores (H, W) and its mask (H, W) bool. Add all defects before.

        Raises:
            ValueError: the shapes differ.
        """
        self._waiting.append(_chosen(scores, ~mask))
        self._counting = True
        if sum(map(len, self._waiting)) >= max(block_bytes() // 4, len(self._levels)):
            self._count()

    def result(self) -> PixelMetrics | None:
        """Return the metrics over all pixels added, or None if there is no normal pixel or no defect pixel."""
        self._count()
        if not self._normal or not len(self._levels):
            return None
        defect, region = np.concatenate(self._defect), np.concatenate(self._region)
        level = np.searchsorted(self._levels, defect)
        at_least, above = self._normal - self._below, self._normal - self._up_to
        rates = ((above + at_least) / (2 * self._normal))[level]  # FPR_i; ties count half
        overlap = np.clip(MAX_FPR - rates, 0, None) / MAX_FPR
        per_region = np.bincount(region, overlap, self._regions) / np.bincount(region, minlength=self._regions)
        true = np.bincount(level)[::-1].cumsum()  # defect pixels at or above a level, highest level first
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
    """Return the numbers of anomalous and normal scores at or above each distinct score, highest score first."""
    scores = np.concatenate([normal, anomalous])
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # the end of each run of equal scores
    true = np.cumsum(order >= len(normal))[last]
    return true, np.flatnonzero(last) + 1 - true


def _precision_summary(true: np.ndarray, false: np.ndarray) -> tuple[float, float]:
    """Return average precision and the largest F1.

    Args:
        true: anomalous scores at or above each distinct score, highest score first.
        false: normal scores at or above it.
    """
    precision = true / (true + false)
    f1 = 2 * true / (true + false + true[-1])
    return float(np.sum(np.diff(true, prepend=0) * precision) / true[-1]), float(f1.max())
