"""How much a patch stands out from the patches of other images at its position: the discriminators of SoftPatch.

Each takes groups (P, N, C), P positions of N images, and gives factors (P, N), higher for outliers. Groups are treated
a few at a time: no more than BLOCK_NUMBERS values beside the arguments.

References: Jiang et al., NeurIPS 2022 (arXiv 2403.14233), section 3.2; Breunig et al., "LOF", SIGMOD 2000.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llbnad.progress import track

if TYPE_CHECKING:
    import torch

BLOCK_NUMBERS = 1 << 24  # 64 MiB
REGULARISATION = 0.1  # added to a covariance's diagonal, as a share of the mean variance, as in `padim`


def local_outlier_factor(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """LOF: the density around a patch's `neighbours` nearest over its own; about 1 inside a cluster of any density."""
    import torch

    found = []
    for distances in _distances(groups):  # (p, N, N)
        nearest = distances.topk(min(neighbours, distances.shape[1] - 1), dim=2, largest=False)
        radius = nearest.values[:, :, -1]  # (p, N): distance to the k-th neighbour
        reachability = torch.maximum(nearest.values, _of_neighbours(radius, nearest.indices))  # (p, N, k)
        density = 1 / (reachability.mean(dim=2) + 1e-10)  # duplicates are infinitely dense
        found.append(_of_neighbours(density, nearest.indices).mean(dim=2) / density)
    return torch.cat(found)


def nearest(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Distance to the nearest other image; `neighbours` is not used."""
    import torch

    return torch.cat([distances.amin(dim=2) for distances in _distances(groups)])


def gaussian(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Mahalanobis distance to the position's own Gaussian; `neighbours` is not used."""
    import torch

    found = []
    for block in groups.split(max(1, BLOCK_NUMBERS // groups.shape[2] ** 2)):
        centred = block - block.mean(dim=1, keepdim=True)  # (p, N, C)
        covariance = centred.mT @ centred / (block.shape[1] - 1)
        variance = covariance.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12)
        covariance += REGULARISATION * variance * torch.eye(block.shape[2], device=block.device)
        factor = torch.linalg.cholesky(covariance)
        found.append(torch.linalg.solve_triangular(factor, centred.mT, upper=False).norm(dim=1))
    return torch.cat(found)


DISCRIMINATORS: dict[str, Callable[["torch.Tensor", int], "torch.Tensor"]] = {
    "lof": local_outlier_factor,
    "gaussian": gaussian,
    "nearest": nearest,
}


def _distances(groups: "torch.Tensor") -> "Iterator[torch.Tensor]":
    """Distances (p, N, N) inside each group, infinite to itself, a few groups at a time."""
    step = max(1, BLOCK_NUMBERS // groups.shape[1] ** 2)
    for block in track(groups.split(step), "judge patches", unit="block"):
        squared_norms = block.square().sum(dim=2)  # (p, N)
        products = block @ block.mT
        distances = (squared_norms[:, :, None] + squared_norms[:, None] - 2 * products).clamp_min(0).sqrt()
        distances.diagonal(dim1=1, dim2=2).fill_(float("inf"))
        yield distances


def _of_neighbours(values: "torch.Tensor", indices: "torch.Tensor") -> "torch.Tensor":
    """values (p, N) looked up at indices (p, N, k)."""
    return values.gather(1, indices.flatten(1)).view_as(indices)
