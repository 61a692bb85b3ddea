"""Cut between two modes where the scores clearly have two, and by the lower half's own spread where they do not.

A false second mode is dear: on turned parts, the two modes that a mixture finds are two kinds of normal images, and the
cut between them takes rare views away. A true second mode is worth using: there the mixture's cut finds more defects
than `tail`, and suspicious patches of the kept images can be left out as well. The evidence decides, the gain in BIC of
two components over one. It has to be strong as a whole, which few images cannot give, and strong per image, because
with many images any departure from the normal distribution gives evidence of a second component.

docs/results.md says on which sets both limits were chosen, and what the policy does on each set when it is chosen
without it.
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
    steps: float = Field(3.25, gt=0)  # see `tail`
    evidence: float = Field(105, ge=0)  # gain in BIC of two modes over one from which there are two
    evidence_per_image: float = Field(0.15, ge=0)  # the same, divided by the number of images; both must be reached

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores that the policy which the evidence chooses keeps."""
        return Mixture().count(ordered) if self.apart(ordered) else Tail(steps=self.steps).count(ordered)

    def apart(self, ordered: np.ndarray) -> bool:
        """Return whether there is strong evidence of two modes."""
        return evidence_of_two(ordered) >= max(self.evidence, self.evidence_per_image * len(ordered))

    @property
    def before_last(self) -> SelectionPolicy:
        """`tail`: evidence counts once sub-models have learnt from a cleaner set, where two modes stand out better."""
        return Tail(steps=self.steps)
