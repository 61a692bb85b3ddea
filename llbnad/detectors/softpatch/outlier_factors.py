"""The discriminators of SoftPatch: how much a patch stands out from the patches of other images at its position.

Each discriminator takes groups (P, N, C), the patches at P positions of N images, and returns factors (P, N), higher
for outliers. It works on a few groups at a time, or on a part of one group. Beside the arguments it needs about
`block_bytes()` of memory.

References: Jiang et al., NeurIPS 2022 (arXiv 2403.14233), section 3.2; Breunig et al., "LOF", SIGMOD 2000.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llbnad.utils.progress import track
from llbnad.utils.working_memory import block_bytes

if TYPE_CHECKING:
    import torch

REGULARISATION = 0.1  # added to a covariance's diagonal, as a share of the mean variance; the same as in `padim`


def local_outlier_factor(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Return the local outlier factor (LOF), (P, N, C) -> (P, N).

    The factor is the density around the nearest neighbours of a patch, divided by the density around the patch. It is
    about 1 inside a cluster of any density.

    Args:
        groups: (P, N, C).
        neighbours: k; at most N - 1 are used.
    """
    import torch

    found = []
    for distances, indices in _nearest_others(groups, min(neighbours, groups.shape[1] - 1)):
        radius = distances[:, :, -1]  # (p, N): distance to the k-th neighbour
        reachability = torch.maximum(distances, _of_neighbours(radius, indices))  # (p, N, k)
        density = 1 / (reachability.mean(dim=2) + 1e-10)  # duplicates are infinitely dense
        found.append(_of_neighbours(density, indices).mean(dim=2) / density)
    return torch.cat(found)


def nearest(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Return the distance to the nearest patch of another image, (P, N, C) -> (P, N). `neighbours` is not used."""
    import torch

    return torch.cat([distances.squeeze(2) for distances, _ in _nearest_others(groups, 1)])


def gaussian(groups: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Return the Mahalanobis distance to the position's Gaussian, (P, N, C) -> (P, N). `neighbours` is not used."""
    import torch

    found = []
    for block in groups.split(max(1, _block_numbers() // groups.shape[2] ** 2)):
        centred = block - block.mean(dim=1, keepdim=True)  # (p, N, C)
        covariance = centred.mT @ centred / (block.shape[1] - 1)
        variance = covariance.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)  # (p,)
        covariance += REGULARISATION * variance[:, None, None] * torch.eye(block.shape[2], device=block.device)
        factor = torch.linalg.cholesky(covariance)
        found.append(torch.linalg.solve_triangular(factor, centred.mT, upper=False).norm(dim=1))
    return torch.cat(found)


DISCRIMINATORS: dict[str, Callable[["torch.Tensor", int], "torch.Tensor"]] = {
    "lof": local_outlier_factor,
    "gaussian": gaussian,
    "nearest": nearest,
}


def _nearest_others(groups: "torch.Tensor", count: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """Yield, for p groups at a time, the distances of each patch to the `count` nearest patches of other images.

    Both results are (p, N, count): the distances, ascending, and the indices of the other images.
    """
    import torch

    images = groups.shape[1]
    step = max(1, _block_numbers() // images**2)
    parts = -(-(images**2) // _block_numbers())  # above 1 if one group needs more than a block
    for block in track(groups.split(step), "judge patches", unit="block"):
        squared_norms = block.square().sum(dim=2)  # (p, N)
        found, start = [], 0
        for part in block.tensor_split(parts, dim=1):
            rows = slice(start, start + part.shape[1])
            squared = squared_norms[:, rows, None] + squared_norms[:, None] - 2 * (part @ block.mT)  # (p, r, N)
            distances = squared.clamp_min(0).sqrt()
            distances.diagonal(start, dim1=1, dim2=2).fill_(float("inf"))  # a patch is not its own neighbour
            found.append(distances.topk(count, dim=2, largest=False))
            start = rows.stop
        yield torch.cat([near.values for near in found], dim=1), torch.cat([near.indices for near in found], dim=1)


def _block_numbers() -> int:
    return max(1, block_bytes() // 4)


def _of_neighbours(values: "torch.Tensor", indices: "torch.Tensor") -> "torch.Tensor":
    """Look values (p, N) up at indices (p, N, k): (p, N, k)."""
    return values.gather(1, indices.flatten(1)).view_as(indices)
