"""The cut between two groups of scores that are as far apart as can be, whether or not there are two.

It always cuts, also a clean set: for comparison.

References: Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 1979; exact on the scores'
logarithms, without a histogram.
"""

from typing import Literal

import numpy as np

from llbnad.config import SelectionPolicy
from llbnad.policies.twins import twins


class Otsu(SelectionPolicy):
    """Largest variance between the groups."""

    policy: Literal["otsu"] = "otsu"

    def count(self, ordered: np.ndarray) -> int:
        """Images in the lower group."""
        if known := twins(ordered):
            return known + self.count(ordered[known:])
        total = len(ordered)
        if total < 2 or ordered[0] == ordered[-1]:
            return total
        values = np.log(np.maximum(ordered, np.finfo(float).tiny))
        lower = np.arange(1, total)
        sums = values.cumsum()
        between = lower * (total - lower) * (sums[:-1] / lower - (sums[-1] - sums[:-1]) / (total - lower)) ** 2
        return int(between.argmax()) + 1
