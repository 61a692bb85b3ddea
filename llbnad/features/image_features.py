"""One vector an image: its patch features averaged over a coarse grid, for comparing whole images with each other."""

from collections.abc import Sequence

import numpy as np

from llbnad.features.source import FeatureSource


def image_features(features: FeatureSource, image_ids: Sequence[str], grid: int, description: str) -> np.ndarray:
    """Unit vectors (N, D) float32 of `image_ids`, in their order.

    Each layer (B, C, h, w) is averaged to grid × grid cells and scaled to equal length, so that every layer has the
    same say. Distances between vectors lie in [0, 2].

    Args:
        features: of the images.
        image_ids: N images.
        grid: 1 forgets where things are; 4 tells a scratch on the left from one on the right.
        description: shown with the progress.
    """
    from torch.nn import functional

    rows = []
    for batch in features.batches(image_ids, description):
        vectors = [
            functional.normalize(functional.adaptive_avg_pool2d(layer, grid).flatten(1), dim=1)  # (B, C·grid²)
            for layer in batch.maps
        ]
        rows.append(np.concatenate([vector.cpu().numpy() for vector in vectors], axis=1) / len(vectors) ** 0.5)
    return np.concatenate(rows) if rows else np.empty((0, 0), np.float32)
