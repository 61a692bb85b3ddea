"""PatchCore: distance of a patch to its nearest neighbours in a memory of training patches.

References: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022 (arXiv 2106.08265).
Differences: the memory is a random sample, or the densest part of one; the paper's greedy coreset amplifies
contamination (`coreset`), so it is not the default, and picks from a random sample, which bounds its time. Vectors are
scaled to length 1 unless `vectors` is raw (`base.embed`). The search is exact, in blocks of matrix products. The image
score is this package's (`base.image_scores`), without PatchCore's re-weighting.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from llbnad.config import DetectorConfig
from llbnad.detectors.base import Vectors, draw_patches, patch_vectors
from llbnad.detectors.patchcore.coreset import farthest_first
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.working_memory import block_bytes

if TYPE_CHECKING:
    import torch

MIN_ROWS = 64  # patches at once, whatever the memory's size: below 5, BLAS takes a kernel that rounds otherwise
DENSITY_NEIGHBOURS = 5  # a patch's density is judged by the distance to this neighbour


class PatchcoreConfig(DetectorConfig):
    """Settings of `Patchcore`."""

    name: Literal["patchcore"] = "patchcore"
    memory: Literal["random", "density", "greedy"] = "random"  # patches kept: any, the densest or the farthest apart
    memory_size: int = Field(8192, ge=1)  # patches kept
    oversampling: int = Field(2, ge=1)  # density and greedy choose from this many candidates a patch kept
    neighbours: int = Field(1, ge=1, le=64)  # distance = mean over this many nearest patches
    vectors: Vectors = "unit"  # patch vectors scaled to length 1, or raw as the paper's


class Patchcore:
    """Nearest-neighbour detector; distances between unit vectors lie in [0, 2], between raw ones anywhere."""

    config_class: ClassVar = PatchcoreConfig

    def __init__(self, config: PatchcoreConfig) -> None:
        import torch

        self.config = config
        self.memory = torch.empty(0, 0)  # (M, C)

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Fill the memory from the patches of `image_ids`."""
        import torch

        kind, size = self.config.memory, self.config.memory_size
        generator = torch.Generator().manual_seed(seed)
        wanted = size if kind == "random" else size * self.config.oversampling
        memory = draw_patches(features, image_ids, wanted, seed, "patchcore", self.config.vectors)
        if kind == "density":
            memory = _densest(memory, size)
        elif kind == "greedy":
            memory = memory[farthest_first(memory, size, generator).sort().values]
        self.memory = memory

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Mean distance to the nearest `neighbours` patches of the memory, (B, h, w)."""
        patches = patch_vectors(batch, self.config.vectors)  # (B, h, w, C)
        nearest = nearest_distances(patches.flatten(0, 2), self.memory.to(patches.device), self.config.neighbours)
        return nearest.mean(dim=1).reshape(patches.shape[:3])

    def tensors(self) -> "dict[str, torch.Tensor]":
        """The memory."""
        return {"memory": self.memory.cpu().contiguous()}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take the memory back."""
        self.memory = tensors["memory"]


def nearest_distances(queries: "torch.Tensor", memory: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Exact Euclidean distances (Q, k) of queries (Q, C) to their k nearest rows of memory (M, C), ascending.

    Works in blocks: beside its arguments it needs `block_bytes()`, or MIN_ROWS × M numbers if these are more.
    """
    import torch

    neighbours = min(neighbours, len(memory))
    found = []
    for partial, norms in _squared_distances(queries, memory):
        if neighbours == 1:  # much faster than topk
            nearest = partial.amin(dim=1, keepdim=True)
        else:
            nearest = partial.topk(neighbours, dim=1, largest=False).values
        found.append(nearest.add_(norms))  # rounding keeps order: the same numbers as of sums made before
    return torch.cat(found).clamp_min(0).sqrt()


def nearest_neighbours(queries: "torch.Tensor", memory: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Distances (Q,) to the nearest row of memory, and which row that is (Q,)."""
    import torch

    found = [partial.add_(norms).min(dim=1) for partial, norms in _squared_distances(queries, memory)]
    return torch.cat([f.values for f in found]).clamp_min(0).sqrt(), torch.cat([f.indices for f in found])


def _squared_distances(
    queries: "torch.Tensor", memory: "torch.Tensor"
) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """Squared distances in two parts, |m|² - 2 q·m (q, M) and |q|² (q, 1), a block of queries at a time.

    Rounding may leave their sum just below 0.

    A block lies where the one before it lay: use it before asking for the next.
    """
    import torch

    squared_norms = memory.square().sum(dim=1)  # (M,)
    transposed = memory.T.contiguous()
    exporting = torch.compiler.is_exporting()  # a graph has one block: how many there are would freeze its batch size
    rows = max(MIN_ROWS, block_bytes() // (max(1, len(memory)) * queries.element_size()))
    # blocks of nearly equal size: none is a remainder of a few rows
    blocks = (queries,) if exporting else queries.tensor_split(max(1, -(-len(queries) // rows)))
    space = None if exporting else queries.new_empty(len(blocks[0]), len(memory))
    for block in blocks:
        out = None if space is None else space[: len(block)]
        partial = torch.addmm(squared_norms, block, transposed, alpha=-2, out=out)
        yield partial, block.square().sum(dim=1, keepdim=True)


def _densest(candidates: "torch.Tensor", count: int) -> "torch.Tensor":
    """The `count` candidates whose neighbourhood is densest: rare patches, defects among them, are left out."""
    # a candidate is its own nearest neighbour
    distances = nearest_distances(candidates, candidates, DENSITY_NEIGHBOURS + 1)[:, -1]
    keep = distances.argsort(stable=True)[:count]
    return candidates[keep.sort().values]
