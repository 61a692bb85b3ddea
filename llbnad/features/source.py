"""The one thing a detector asks of its features: batches of the images it names."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from llbnad.features.batch import Batch


class FeatureSource(Protocol):
    """Where a detector's features come from; `llbnad.features.store.store.FeatureStore` is one."""

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Features of `image_ids` in their order."""
        ...
