"""Features on a coarser grid, for studies: the maps of a store are averaged once and stay in memory."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llbnad.features.batch import Batch
from llbnad.features.derived import DerivedMemory
from llbnad.features.store import FeatureStore

if TYPE_CHECKING:
    import torch


class PooledFeatures:
    """The feature maps of a store, averaged to a coarser grid and kept in memory.

    The side of the finest map shrinks by `factor`. Other maps are averaged to the same grid, unless they are coarser
    already. Everything is read once and kept as float16, and so are patch vectors, as they are. This serves studies
    that train many detectors on the same few thousand images.

    Args:
        features: the store.
        factor: positions of the finest map per side that become one position.
    """

    def __init__(self, features: FeatureStore, factor: int) -> None:
        self.features = features
        self.factor = factor
        self._memory = DerivedMemory(sys.maxsize)
        self._known: dict[str, tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]] = {}  # maps and prefixes

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield the batches of the store with averaged maps."""

        missing = [image_id for image_id in dict.fromkeys(image_ids) if image_id not in self._known]
        if missing:
            for batch in self.features.batches(missing, "pool"):
                maps, prefixes = self._pooled(batch), [prefix.half().cpu() for prefix in batch.prefixes]
                for number, image_id in enumerate(batch.image_ids):
                    self._known[image_id] = tuple(m[number] for m in maps), tuple(p[number] for p in prefixes)
        size = self.features.batch_size
        for start in range(0, len(image_ids), size):
            chunk = tuple(image_ids[start : start + size])
            known = [self._known[image_id] for image_id in chunk]
            frames = [self.features.frames[image_id] for image_id in chunk] if self.features.frames else []
            layers, tokens = self._stacked([one[0] for one in known]), self._stacked([one[1] for one in known])
            yield Batch(chunk, layers, tokens, frames=frames, memory=self._memory)

    def _stacked(self, images: "Sequence[tuple[torch.Tensor, ...]]") -> "tuple[torch.Tensor, ...]":
        import torch

        layers = zip(*images, strict=True)
        return tuple(torch.stack(layer).to(self.features.device).float() for layer in layers)

    def _pooled(self, batch: Batch) -> "list[torch.Tensor]":
        from torch.nn import functional

        rows, columns = (side // self.factor for side in batch.maps[0].shape[-2:])
        return [
            functional.adaptive_avg_pool2d(layer, (min(rows, layer.shape[-2]), min(columns, layer.shape[-1])))
            .half()
            .cpu()
            for layer in batch.maps
        ]
