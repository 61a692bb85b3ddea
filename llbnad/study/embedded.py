"""Features with their patch vectors in memory, for studies that train many detectors on a few thousand images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llbnad.detectors.base import patch_vectors
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource

if TYPE_CHECKING:
    import torch


class EmbeddedFeatures:
    """A feature source that computes the patch vectors of an image once. An image of 14 × 14 patches takes 130 KB.

    Args:
        features: the source of the features.
    """

    def __init__(self, features: FeatureSource) -> None:
        self.features = features
        self._known: dict[str, torch.Tensor] = {}  # (h, w, C) float32 by image id

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield the batches of the source; their patch vectors are there already."""
        import torch

        for batch in self.features.batches(image_ids, description):
            if all(image_id in self._known for image_id in batch.image_ids):
                known = torch.stack([self._known[image_id] for image_id in batch.image_ids])
                batch.once("unit patch vectors", lambda known=known: known)  # type: ignore[misc]
            else:
                self._known.update(zip(batch.image_ids, patch_vectors(batch), strict=True))
            yield batch
