"""PatchCore: distance of a patch to its nearest neighbours in a memory of training patches.

References: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022 (arXiv 2106.08265).
Differences:
* The memory is a random sample, or the densest part of a random sample. The paper's greedy coreset is an option, not
  the default, because it amplifies contamination (`coreset`). It picks from a random sample, which bounds its time.
* Vectors are scaled to length 1 unless `vectors` is raw (`base.embed`).
* The search is exact, in blocks of matrix products.
* The image score is `base.image_scores`, without PatchCore's re-weighting.
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

MIN_ROWS = 64  # smallest block of patches: below 5 rows, BLAS takes a kernel that rounds differently
DENSITY_NEIGHBOURS = 5  # a patch's density is judged by the distance to this neighbour


class PatchcoreConfig(DetectorConfig):
    """Settings of `Patchcore`."""

    name: Literal["patchcore"] = "patchcore"
    memory: Literal["random", "density", "greedy"] = "random"  # patches to keep: any, the densest or the farthest apart
    memory_size: int = Field(8192, ge=1)  # number of patches kept
    oversampling: int = Field(2, ge=1)  # density and greedy choose from this many candidates per patch kept
    neighbours: int = Field(1, ge=1, le=64)  # a distance is the mean over this many nearest patches
    vectors: Vectors = "unit"  # patch vectors are scaled to length 1, or raw as in the paper


class Patchcore:
    """Nearest-neighbour detector. Distances between unit vectors lie in [0, 2]; raw vectors set no upper bound."""

    config_class: ClassVar = PatchcoreConfig

    def __init__(self, config: PatchcoreConfig) -> None:
        import torch

        self.config = config
        self.memory = torch.empty(0, 0)  # (M, C)

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Fill the memory with patches of `image_ids`.

        Raises:
            DataError: there is no image.
        """
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
        """Return mean distances (B, h, w) to the nearest `neighbours` patches of the memory."""
        patches = patch_vectors(batch, self.config.vectors)  # (B, h, w, C)
        nearest = nearest_distances(patches.flatten(0, 2), self.memory.to(patches.device), self.config.neighbours)
        return nearest.mean(dim=1).reshape(patches.shape[:3])

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the memory (M, C)."""
        return {"memory": self.memory.cpu().contiguous()}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the memory from the result of `tensors`."""
        self.memory = tensors["memory"]


def nearest_distances(queries: "torch.Tensor", memory: "torch.Tensor", neighbours: int) -> "torch.Tensor":
    """Return the exact Euclidean distances (Q, k) of each query to its k nearest rows of memory, ascending.

    The search works in blocks. Beside its arguments it needs `block_bytes()` of memory, or MIN_ROWS × M numbers if
    these take more.

    Args:
        queries: (Q, C).
        memory: (M, C).
        neighbours: k; at most M are returned.
    """
    import torch

    neighbours = min(neighbours, len(memory))
    found = []
    for partial, norms in _squared_distances(queries, memory):
        if neighbours == 1:  # amin is much faster than topk
            nearest = partial.amin(dim=1, keepdim=True)
        else:
            nearest = partial.topk(neighbours, dim=1, largest=False).values
        # adding |q|² after the choice gives the same numbers: it is one constant per row, and rounding keeps order
        found.append(nearest.add_(norms))
    return torch.cat(found).clamp_min(0).sqrt()


def nearest_neighbours(queries: "torch.Tensor", memory: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """Return the distance (Q,) of each query (Q, C) to the nearest row of memory (M, C), and that row's index (Q,)."""
    import torch

    found = [partial.add_(norms).min(dim=1) for partial, norms in _squared_distances(queries, memory)]
    return torch.cat([f.values for f in found]).clamp_min(0).sqrt(), torch.cat([f.indices for f in found])


def _squared_distances(
    queries: "torch.Tensor", memory: "torch.Tensor"
) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
    """Yield squared distances in two parts, |m|² - 2 q·m (q, M) and |q|² (q, 1), for one block of queries at a time.

    Rounding may leave the sum of both parts just below 0. All blocks share one buffer: use a block before you ask for
    the next.
    """
    import torch

    squared_norms = memory.square().sum(dim=1)  # (M,)
    transposed = memory.T.contiguous()
    # an exported graph has one block, because a number of blocks would fix its batch size
    exporting = torch.compiler.is_exporting()
    rows = max(MIN_ROWS, block_bytes() // (max(1, len(memory)) * queries.element_size()))
    # nearly equal blocks, so that none has only a few rows
    blocks = (queries,) if exporting else queries.tensor_split(max(1, -(-len(queries) // rows)))
    space = None if exporting else queries.new_empty(len(blocks[0]), len(memory))
    for block in blocks:
        out = None if space is None else space[: len(block)]
        partial = torch.addmm(squared_norms, block, transposed, alpha=-2, out=out)
        yield partial, block.square().sum(dim=1, keepdim=True)


def _densest(candidates: "torch.Tensor", count: int) -> "torch.Tensor":
    """Return the `count` candidates (N, C) with the densest neighbourhoods. Rare patches and defects are left out."""
    # a candidate is its own nearest neighbour
    distances = nearest_distances(candidates, candidates, DENSITY_NEIGHBOURS + 1)[:, -1]
    keep = distances.argsort(stable=True)[:count]
    return candidates[keep.sort().values]
