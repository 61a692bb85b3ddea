"""Farthest-first sampling: the greedy coreset of PatchCore (Roth et al., CVPR 2022, arXiv 2106.08265, algorithm 1).

Each pick is the candidate farthest from all earlier picks (k-center, a 2-approximation). Distances are measured after a
random projection (Johnson-Lindenstrauss), as in the paper. The sampling looks for outliers by design, so it collects
defects from contaminated images (CleanCon: 16 to 41 times their share). Purify first, or take a random memory.
"""

from typing import TYPE_CHECKING

from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

PROJECTED = 128  # dimensions after the projection


def farthest_first(candidates: "torch.Tensor", count: int, generator: "torch.Generator") -> "torch.Tensor":
    """Return the indices (M,) of the picked candidates, in the order of picking. The first candidate is picked first.

    This takes O(M · N) time, and memory for the projection and N numbers.

    Args:
        candidates: (N, C).
        count: M; all candidates are picked if there are fewer.
        generator: draws the projection.
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
        remaining[pick] = -1  # below every distance, so that no candidate is picked twice, even among duplicates
        pick = remaining.argmax()
    return torch.stack(picked)
