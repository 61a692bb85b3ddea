"""Nearest-neighbour distances of patches to a memory, by llbnad and by scikit-learn. They are equal within rounding."""

import time
from typing import Any

import numpy as np
import torch

from llbnad.config import Runtime
from llbnad.detectors.patchcore.detector import nearest_distances
from llbnad.utils.runtime import prepare

CHANNELS = 168


def _vectors(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, CHANNELS, generator=generator), dim=1)


def ours(threads: int, patches: int, memory: int) -> dict[str, Any]:
    """Measure `nearest_distances`, one batch of 16 images at a time."""
    prepare(Runtime(device="cpu", threads=threads))
    queries, known = _vectors(patches, 1), _vectors(memory, 2)
    nearest_distances(queries[:784], known, 1)
    started = time.perf_counter()
    for block in queries.split(16 * 784):
        nearest_distances(block, known, 1)
    return {"seconds": time.perf_counter() - started}


def scikit_learn(threads: int, patches: int, memory: int) -> dict[str, Any]:
    """Measure `NearestNeighbors` with brute force, because trees are slower in so many dimensions."""
    from sklearn.neighbors import NearestNeighbors

    queries, known = _vectors(patches, 1).numpy(), _vectors(memory, 2).numpy()
    fitted = NearestNeighbors(n_neighbors=1, algorithm="brute", n_jobs=threads).fit(known)
    fitted.kneighbors(queries[:784])
    started = time.perf_counter()
    for block in np.array_split(queries, -(-len(queries) // (16 * 784))):
        fitted.kneighbors(block)
    return {"seconds": time.perf_counter() - started}
