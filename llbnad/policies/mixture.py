"""Two Gaussians on the logarithm of the scores, if the data want two: then the lower one's images are kept.

One component against two is decided by the Bayesian information criterion, so a set whose scores have one mode is kept
whole. An image is rejected if the upper component explains it better. On clean sets of odd normals (magnetic tiles) the
criterion may still find two modes.

References: Schwarz, "Estimating the dimension of a model", Ann. Statist. 1978; Arazo et al., "Unsupervised label noise
modeling and loss correction", ICML 2019 (arXiv 1904.11238), split noisy from clean by a mixture on losses.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy
from llbnad.policies.logarithm import logarithms
from llbnad.policies.minority import is_minority

RESTARTS = 3
SMALLEST = 10  # images; of fewer, no shape can be told


class Mixture(SelectionPolicy):
    """Keep the lower of two modes; keep everything if there is one."""

    policy: Literal["mixture"] = "mixture"
    evidence: float = Field(0, ge=0)  # by how much two components must beat one; 10 counts as very strong

    def count(self, ordered: np.ndarray) -> int:
        """Images below the point where the upper component takes over."""
        from sklearn.mixture import GaussianMixture

        if len(ordered) < SMALLEST or ordered[0] == ordered[-1]:
            return len(ordered)
        values = logarithms(ordered, self.policy)[:, None]  # (N, 1)
        one = GaussianMixture(1, random_state=0).fit(values)
        two = GaussianMixture(2, n_init=RESTARTS, random_state=0).fit(values)
        if one.bic(values) - two.bic(values) <= self.evidence:
            return len(ordered)
        lower, upper = np.argsort(two.means_.ravel())
        suspicious = two.predict_proba(values)[:, upper] >= 0.5
        # a wide upper component may win below the lower one's mode as well: scores there are not suspicious
        suspicious &= values.ravel() > two.means_.ravel()[lower]
        count = max(1, int(suspicious.argmax())) if suspicious.any() else len(ordered)
        return count + self.count(ordered[count:]) if is_minority(count, len(ordered)) else count
