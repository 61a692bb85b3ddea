"""Otsu's cut: the split of the scores into two groups with the largest variance between the groups.

It cuts a clean set as well. It is here for comparison.

References: Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 1979.
Difference: the cut is exact, on the logarithms of the scores, without a histogram.
"""

from typing import Literal

import numpy as np

from llbnad.config import SelectionPolicy
from llbnad.policies.logarithm import logarithms
from llbnad.policies.minority import is_minority


class Otsu(SelectionPolicy):
    """Keep the lower group of Otsu's cut."""

    policy: Literal["otsu"] = "otsu"

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores in the lower group."""
        total = len(ordered)
        if total < 2 or ordered[0] == ordered[-1]:
            return total
        values = logarithms(ordered, self.policy)
        lower = np.arange(1, total)
        sums = values.cumsum()
        between = lower * (total - lower) * (sums[:-1] / lower - (sums[-1] - sums[:-1]) / (total - lower)) ** 2
        count = int(between.argmax()) + 1
        return count + self.count(ordered[count:]) if is_minority(count, total) else count
