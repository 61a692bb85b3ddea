"""A mixture of two Gaussians on the logarithms of the scores. The images of the lower component are kept.

The Bayesian information criterion decides between one component and two, so a set whose scores have one mode is kept
whole. An image is rejected if the upper component explains it better. On a clean set with odd normal images (magnetic
tiles), the criterion may still find two modes.

References: Schwarz, "Estimating the dimension of a model", Ann. Statist. 1978; Arazo et al., "Unsupervised label noise
modeling and loss correction", ICML 2019 (arXiv 1904.11238), split noisy from clean by a mixture on losses.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy
from llbnad.policies.logarithm import logarithms
from llbnad.policies.minority import is_minority

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

RESTARTS = 3
FEWEST_IMAGES = 10  # fewest images whose scores have a recognisable shape; fewer images are all kept


class Mixture(SelectionPolicy):
    """Keep the lower of two modes; keep everything if there is only one mode."""

    policy: Literal["mixture"] = "mixture"
    evidence: float = Field(0, ge=0)  # how much better, in BIC, two components must be than one; 10 is very strong

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores below the point where the upper component takes over."""
        if len(ordered) < FEWEST_IMAGES or ordered[0] == ordered[-1]:
            return len(ordered)
        values = logarithms(ordered, self.policy)[:, None]  # (N, 1)
        two, evidence = _two_modes(values)
        if evidence <= self.evidence:
            return len(ordered)
        lower, upper = np.argsort(two.means_.ravel())
        suspicious = two.predict_proba(values)[:, upper] >= 0.5
        # a wide upper component may also win below the lower component's mode, where scores are not suspicious
        suspicious &= values.ravel() > two.means_.ravel()[lower]
        count = max(1, int(suspicious.argmax())) if suspicious.any() else len(ordered)
        return count + self.count(ordered[count:]) if is_minority(count, len(ordered)) else count


def evidence_of_two(ordered: np.ndarray) -> float:
    """Return the gain in BIC of two modes over one for ascending scores (N,).

    Too few scores, equal scores, and scores without a logarithm give no evidence: 0.
    """
    if len(ordered) < FEWEST_IMAGES or ordered[0] == ordered[-1] or ordered[0] < 0:
        return 0.0
    return _two_modes(logarithms(ordered, "mixture")[:, None])[1]


def _two_modes(values: np.ndarray) -> "tuple[GaussianMixture, float]":
    """Fit two components to `values` (N, 1). Return them, and their gain in BIC over one component."""
    from sklearn.mixture import GaussianMixture

    one = GaussianMixture(1, random_state=0).fit(values)
    two = GaussianMixture(2, n_init=RESTARTS, random_state=0).fit(values)
    return two, float(one.bic(values) - two.bic(values))
