"""Cut between two modes where the scores clearly have two, and by the lower half's own spread where they do not.

A false second mode is dear: on turned parts, the two modes that a mixture finds are two kinds of normal images, and the
cut between them takes rare views away. A true second mode is worth using: there the mixture's cut finds more defects
than `tail`, and suspicious patches of the kept images can be left out as well. The evidence decides, the gain in BIC of
two components over one. It has to be strong as a whole, which few images cannot give, and strong per image, because
with many images any departure from the normal distribution gives evidence of a second component. Patches are rejected
on stronger evidence than images, because a false second mode costs most there.

docs/results.md says on which sets the limits were chosen, and what they rest on.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy
from llbnad.policies.mixture import Mixture, evidence_of_two
from llbnad.policies.tail import Tail


class Adaptive(SelectionPolicy):
    """`mixture` where there is strong evidence of two modes, `tail` elsewhere."""

    policy: Literal["adaptive"] = "adaptive"
    lost: float = Field(0.5, gt=0)  # see `tail`
    evidence: float = Field(50, ge=0)  # gain in BIC of two modes over one from which the mixture cuts
    evidence_per_image: float = Field(0.13, ge=0)  # the same, divided by the number of images; both must be reached
    patch_evidence: float = Field(105, ge=0)  # gain in BIC from which patches of kept images may be rejected as well

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores that the policy which the evidence chooses keeps."""
        two = self._shown(ordered, self.evidence)
        return Mixture().count(ordered) if two else Tail(lost=self.lost).count(ordered)

    def apart(self, ordered: np.ndarray) -> bool:
        """Return whether the evidence of two modes is strong enough to reject patches too, where an error is dearer."""
        return self._shown(ordered, max(self.evidence, self.patch_evidence))

    def _shown(self, ordered: np.ndarray, evidence: float) -> bool:
        return evidence_of_two(ordered) >= max(evidence, self.evidence_per_image * len(ordered))

    @property
    def before_last(self) -> SelectionPolicy:
        """`tail`: evidence counts once sub-models have learnt from a cleaner set, where two modes stand out better."""
        return Tail(lost=self.lost)
