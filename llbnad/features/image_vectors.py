"""One vector per image: its patch features averaged over a coarse grid, to compare whole images with each other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource

if TYPE_CHECKING:
    import torch


def image_vectors(features: FeatureSource, image_ids: Sequence[str], grid: int, description: str) -> np.ndarray:
    """Return one unit vector per image, (N, D) float32, in the order of `image_ids`.

    Each layer (B, C, h, w) is averaged to grid × grid cells and scaled to equal length, so that all layers weigh alike.
    Distances between vectors lie in [0, 2]. Patches that do not count (`Batch.inside_on`) are left out of the means.

    Args:
        features: features of the images.
        image_ids: ids of the N images.
        grid: cells per side. 1 forgets where things are; 4 tells a scratch on the left from a scratch on the right.
        description: text shown with the progress.
    """
    from torch.nn import functional

    rows = []
    for batch in features.batches(image_ids, description):
        vectors = [functional.normalize(_pooled(batch, layer, grid).flatten(1), dim=1) for layer in batch.maps]
        rows.append(np.concatenate([vector.cpu().numpy() for vector in vectors], axis=1) / len(vectors) ** 0.5)
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)


def _pooled(batch: Batch, layer: "torch.Tensor", grid: int) -> "torch.Tensor":
    """Return the means of a layer (B, C, h, w) over cells, (B, C, grid, grid); 0 where no patch of a cell counts."""
    from torch.nn.functional import adaptive_avg_pool2d

    inside = batch.inside_on(layer.shape[-2:])
    if inside is None:
        return adaptive_avg_pool2d(layer, grid)
    weights = inside[:, None].to(layer)
    return adaptive_avg_pool2d(layer * weights, grid) / adaptive_avg_pool2d(weights, grid).clamp_min(1e-6)
