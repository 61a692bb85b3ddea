"""Scores on a logarithmic scale: distances spread by factors, not by differences."""

import numpy as np

from llbnad.errors import DataError


def logarithms(ordered: np.ndarray, policy: str) -> np.ndarray:
    """Natural logarithms of scores (N,), ascending; zero counts as far below all others.

    Raises:
        DataError: a score is negative.
    """
    if ordered[0] < 0:
        raise DataError(
            f"policy {policy} goes by ratios of scores, and the detector gives negative ones (the lowest is "
            f"{ordered[0]:.3g}): use policy mad or fraction"
        )
    return np.asarray(np.log(np.maximum(ordered, np.finfo(float).tiny)))
