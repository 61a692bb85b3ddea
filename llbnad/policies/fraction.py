"""Keep the lowest-scored share of the images (arXiv 2508.07441; the authors' code keeps 20 %)."""

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import field_validator

from llbnad.config import SelectionPolicy
from llbnad.errors import percent_hint


class Fraction(SelectionPolicy):
    """Keep a fixed share of the images, whatever the scores look like."""

    policy: Literal["fraction"] = "fraction"
    by_evidence: ClassVar[bool] = False
    keep: float = 0.2  # share of the images that is kept, in (0, 1]

    @field_validator("keep")
    @classmethod
    def _share(cls, keep: float) -> float:
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {keep:g}{percent_hint(keep)}")
        return keep

    def count(self, ordered: np.ndarray) -> int:
        """Return the rounded share of the number of scores, at least 1."""
        return max(1, math.floor(self.keep * len(ordered) + 0.5))
