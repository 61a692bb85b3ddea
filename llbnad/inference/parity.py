"""Whether an exported graph says what the model says: largest differences on images that the detector did not learn.

Runtimes add float32 numbers in different orders, so an exported detector is equal within a tolerance, not bit by bit.
If a patch is itself in PatchCore's memory, its distance is the root of a difference of equal numbers, and there the
tolerance does not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from llbnad.inference.exported import Session
from llbnad.utils.progress import track

TOLERANCE = 1e-4  # largest difference that counts as equal; relative to the largest value if that is above 1


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between an exported graph and a reference."""

    score: float
    map: float
    largest: float  # largest value of the reference's maps: about 50 for Mahalanobis distances, 2 for cosine distances
    images: int  # number of images compared

    @property
    def limit(self) -> float:
        """Largest difference that is allowed."""
        return TOLERANCE * max(1.0, self.largest)

    @property
    def passed(self) -> bool:
        """Whether images were compared and both differences are within the limit. NaN is not within it."""
        return self.images > 0 and self.score <= self.limit and self.map <= self.limit


def parity(reference: Session, exported: Session, images: Sequence[np.ndarray], batch_size: int = 8) -> Parity:
    """Run both graphs on images (H, W, 3) uint8 of any sizes and return their largest differences."""
    scores, maps, largest = 0.0, 0.0, 0.0
    batches = []
    for _, alike in groupby(images, key=np.shape):
        members = list(alike)
        batches += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    for members in track(batches, "compare with torch", unit="batch"):
        batch = np.stack(members)
        (score, patch_map), (other_score, other_map) = reference(batch), exported(batch)
        scores = float(np.maximum(scores, np.abs(score - other_score).max()))  # nan stays nan
        maps = float(np.maximum(maps, np.abs(patch_map - other_map).max()))
        largest = float(np.maximum(largest, np.abs(patch_map).max()))
    return Parity(scores, maps, largest, len(images))
