"""Scores on a logarithmic scale, because distances spread by factors, not by differences."""

import numpy as np

from llbnad.errors import DataError


def logarithms(ordered: np.ndarray, policy: str) -> np.ndarray:
    """Return the natural logarithms of ascending scores (N,). The logarithm of 0 becomes a very low finite number.

    Args:
        ordered: (N,) ascending scores.
        policy: name of the policy, for the error message.

    Raises:
        DataError: a score is negative.
    """
    if ordered[0] < 0:
        raise DataError(
            f"policy {policy} compares ratios of scores, but the detector gives negative scores (the lowest is "
            f"{ordered[0]:.3g}): use policy mad or fraction"
        )
    return np.asarray(np.log(np.maximum(ordered, np.finfo(float).tiny)))
