"""Keep what lies within k robust standard deviations of the median.

No noise ratio has to be known, and a clean set stays nearly whole. Where anomalies are so many that they widen the
MAD itself, the cut comes too late.

References: Leys et al., "Detecting outliers: do not use standard deviation around the mean, use absolute deviation
around the median", J. Exp. Soc. Psychol. 2013; MeDS (ICML 2026) purifies by the same cut.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy

GAUSSIAN_MAD = 1.4826  # standard deviation of a Gaussian over its median absolute deviation


class Mad(SelectionPolicy):
    """Scores up to median + k · 1.4826 · MAD."""

    policy: Literal["mad"] = "mad"
    k: float = Field(2.5, ge=0)  # robust standard deviations above the median that are still kept

    def count(self, ordered: np.ndarray) -> int:
        """Scores at or below the cut."""
        return int((ordered <= mad_cut(ordered, self.k)).sum())


def mad_cut(values: np.ndarray, k: float) -> float:
    """median + k · 1.4826 · MAD of `values` (N,)."""
    from scipy.stats import median_abs_deviation

    return float(np.median(values)) + k * GAUSSIAN_MAD * float(median_abs_deviation(values))
