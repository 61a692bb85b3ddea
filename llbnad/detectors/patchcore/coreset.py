"""Farthest-first sampling: the greedy coreset of PatchCore (Roth et al., CVPR 2022, arXiv 2106.08265, algorithm 1).

Each pick is the candidate farthest from all picked before (k-center, a 2-approximation), measured after a random
projection (Johnson-Lindenstrauss), as in the paper. It looks for outliers by design: from contaminated images it takes
16 to 41 times the defects' share (CleanCon), so purify first or take a random memory.
"""

from typing import TYPE_CHECKING

from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

PROJECTED = 128  # dimensions in which distances are compared


def farthest_first(candidates: "torch.Tensor", count: int, generator: "torch.Generator") -> "torch.Tensor":
    """Indices (M,) of `count` of the candidates (N, C), in the order they were picked, starting with the first.

    Takes O(M · N) time and N numbers of memory beside the projection.
    """
    import torch

    points = candidates
    if points.shape[1] > PROJECTED:
        projection = torch.randn(points.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
        points = points @ projection.to(points)  # (N, d)
    squared_norms = points.square().sum(dim=1)
    remaining = torch.full_like(squared_norms, torch.inf)  # squared distance to the nearest pick
    picked = []
    pick = torch.zeros((), dtype=torch.int64, device=points.device)
    for _ in track(range(min(count, len(points))), "greedy coreset", unit="patch"):
        picked.append(pick)
        distances = torch.addmv(squared_norms, points, points[pick], alpha=-2) + squared_norms[pick]  # (N,)
        remaining = torch.minimum(remaining, distances.clamp_min(0))
        remaining[pick] = -1  # never again, not even among equals
        pick = remaining.argmax()
    return torch.stack(picked)
