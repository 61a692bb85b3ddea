"""Selection policies: which training images the consensus calls normal.

`fraction` keeps the lowest-scored share (arXiv 2508.07441; the authors' code keeps 20 %). `mad` keeps what lies within
k robust standard deviations of the median: no noise ratio has to be known, and a clean set stays nearly whole.
Ties are broken by image id, so the selected *set* does not depend on any order.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llbnad.config import FractionSelection, MadSelection, Selection

GAUSSIAN_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation


@dataclass(frozen=True)
class Purified:
    """What a policy decided."""

    kept: tuple[str, ...]  # image ids, sorted
    rejected: tuple[str, ...]  # image ids, sorted
    cut: float  # the largest score the policy kept


def purify(scores: pd.Series, selection: Selection) -> Purified:
    """Split images into kept and rejected.

    Args:
        scores: (N,) consensus scores indexed by image id, higher is more anomalous.
        selection: the policy and its parameter.
    """
    ordered = scores.sort_index().sort_values(kind="stable")  # by score, ties by image id
    if isinstance(selection, FractionSelection):
        count = max(1, math.floor(selection.keep * len(ordered) + 0.5))
    elif isinstance(selection, MadSelection):
        count = int((ordered <= mad_cut(ordered.to_numpy(np.float64), selection.k)).sum())
    else:
        raise TypeError(f"unknown selection {selection!r}")
    kept, rejected = ordered.index[:count], ordered.index[count:]
    return Purified(tuple(sorted(kept)), tuple(sorted(rejected)), float(ordered.iloc[count - 1]))


def mad_cut(values: np.ndarray, k: float) -> float:
    """median + k · 1.4826 · MAD of `values` (N,)."""
    median = float(np.median(values))
    return median + k * GAUSSIAN_MAD * float(np.median(np.abs(values - median)))
