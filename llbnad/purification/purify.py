"""The verdict: which training images the consensus calls normal, by one of the policies of `llbnad.policies`.

Images are ordered by score and ties broken by image id, so the selected *set* does not depend on any order.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from llbnad.config import SelectionPolicy
from llbnad.policies import count_kept


@dataclass(frozen=True)
class Purified:
    """What a policy decided."""

    kept: tuple[str, ...]  # image ids, sorted
    rejected: tuple[str, ...]  # image ids, sorted
    cut: float  # the largest score the policy kept


def purify(scores: pd.Series, selection: SelectionPolicy) -> Purified:
    """Split images into kept and rejected.

    Args:
        scores: (N,) consensus scores indexed by image id, higher is more anomalous.
        selection: the policy and its parameters.
    """
    ordered = scores.sort_index().sort_values(kind="stable")  # by score, ties by image id
    count = count_kept(selection, ordered.to_numpy(np.float64))
    kept, rejected = ordered.index[:count], ordered.index[count:]
    return Purified(tuple(sorted(kept)), tuple(sorted(rejected)), float(ordered.iloc[count - 1]))
