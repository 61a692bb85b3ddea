"""The protocol between detectors and features: a source returns batches of the images that a detector names."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from llbnad.features.batch import Batch


class FeatureSource(Protocol):
    """The source of a detector's features, such as `llbnad.features.store.FeatureStore`."""

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield batches of `image_ids` in their order, and show progress under `description`."""
        ...
