"""SoftPatch: PatchCore that judges every training patch, discards the noisiest and distrusts what is left by degrees.

A patch is compared with the patches of all other images at the same position. The share `discard` with the highest
outlier factor never enters the memory; the factor of a patch that does multiplies the distances to it.

References: Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022 (arXiv 2403.14233);
LOF: Breunig et al., SIGMOD 2000.
Differences: factors are scaled to a median of 1, so that the three discriminators weigh alike; the memory is random by
default (see `coreset`). It assumes aligned images: a position must mean the same place of the product.

Features are read twice or more: as many positions of all images are judged at once as GATHERED_BLOCKS blocks of
working memory hold, then the memory is collected. Beside that, only one factor a training patch is kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from llbnad.config import DetectorConfig
from llbnad.detectors.base import patch_vectors
from llbnad.detectors.patchcore.coreset import farthest_first
from llbnad.detectors.patchcore.detector import nearest_neighbours
from llbnad.detectors.softpatch.outlier_factors import DISCRIMINATORS
from llbnad.errors import DataError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.working_memory import block_bytes

if TYPE_CHECKING:
    import torch

GATHERED_BLOCKS = 32  # of `block_bytes()`, usually 512 MiB: features judged at once


class SoftpatchConfig(DetectorConfig):
    """Settings of `Softpatch`."""

    name: Literal["softpatch"] = "softpatch"
    discriminator: Literal["lof", "gaussian", "nearest"] = "lof"  # how a patch is judged against those at its position
    discard: float = Field(0.15, ge=0, lt=1)  # share of all training patches; the paper's threshold
    lof_neighbours: int = Field(6, ge=1)  # k of the local outlier factor
    soft_weights: bool = True  # multiply a distance by its neighbour's outlier factor
    memory: Literal["random", "greedy"] = "random"  # patches kept: any, or the farthest apart
    memory_size: int = Field(8192, ge=1)  # patches kept
    oversampling: int = Field(2, ge=1)  # greedy chooses from this many candidates a patch kept


class Softpatch:
    """Nearest-neighbour detector; distances in [0, 2], times an outlier factor around 1."""

    config_class: ClassVar = SoftpatchConfig

    def __init__(self, config: SoftpatchConfig) -> None:
        import torch

        self.config = config
        self.memory = torch.empty(0, 0)  # (M, C)
        self.weights = torch.empty(0)  # (M,) outlier factors of the memory's patches

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Judge the patches of `image_ids` and fill the memory from those that pass."""
        import torch

        image_ids = sorted(image_ids)
        if len(image_ids) < 2:
            raise DataError(f"softpatch needs at least 2 training images, got {len(image_ids)}")
        factors = self._factors(features, image_ids).flatten()  # (N·h·w,)
        keep = max(1, math.ceil((1 - self.config.discard) * len(factors)))
        generator = torch.Generator().manual_seed(seed)
        passed = factors.argsort(stable=True)[:keep].cpu()
        greedy = self.config.memory == "greedy"
        wanted = self.config.memory_size * (self.config.oversampling if greedy else 1)
        chosen = passed[torch.randperm(keep, generator=generator)[:wanted]].sort().values
        memory = _collect(features, image_ids, chosen, len(factors) // len(image_ids))
        weights = factors[chosen.to(factors.device)]
        if greedy:
            order = farthest_first(memory, self.config.memory_size, generator).sort().values
            memory, weights = memory[order], weights[order]
        self.memory, self.weights = memory, weights

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Distance to the nearest patch of the memory, times that patch's factor, (B, h, w)."""
        patches = patch_vectors(batch)
        distances, indices = nearest_neighbours(patches.flatten(0, 2), self.memory.to(patches.device))
        if self.config.soft_weights:
            distances = distances * self.weights.to(patches.device)[indices]
        return distances.reshape(patches.shape[:3])

    def tensors(self) -> "dict[str, torch.Tensor]":
        """The memory and its weights."""
        return {"memory": self.memory.cpu().contiguous(), "weights": self.weights.cpu().contiguous()}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take back what `tensors` gave."""
        self.memory, self.weights = tensors["memory"], tensors["weights"]

    def _factors(self, features: FeatureSource, image_ids: list[str]) -> "torch.Tensor":
        """Outlier factors (N, h·w) with a median of 1, or one of 1 among those above 0 if most are 0."""
        import torch

        discriminate = DISCRIMINATORS[self.config.discriminator]
        first = patch_vectors(next(iter(features.batches(image_ids[:1], "look"))))  # (1, h, w, C)
        positions, channels = first.shape[1] * first.shape[2], first.shape[3]
        step = max(1, GATHERED_BLOCKS * block_bytes() // (len(image_ids) * channels * first.element_size()))
        blocks = []
        for start in range(0, positions, step):
            group = first.new_empty(min(step, positions - start), len(image_ids), channels)  # (p, N, C)
            filled = 0
            for batch in features.batches(image_ids, "fit"):
                own = slice(filled, filled + len(batch.image_ids))
                group[:, own] = patch_vectors(batch).flatten(1, 2)[:, start : start + step].transpose(0, 1)
                filled = own.stop
            blocks.append(discriminate(group, self.config.lof_neighbours))  # (p, N)
        factors = torch.cat(blocks).T.contiguous()
        typical = factors.median()
        if typical == 0:  # most patches are alike in all images: a constant background
            typical = factors[factors > 0].median() if factors.any() else torch.ones_like(typical)
        return factors / typical


def _collect(features: FeatureSource, image_ids: list[str], chosen: "torch.Tensor", positions: int) -> "torch.Tensor":
    """The patches (M, C) whose flat indices image · positions + position are `chosen`, ascending (M,)."""
    import torch

    found, start = [], 0
    for batch in features.batches(image_ids, "memory"):
        patches = patch_vectors(batch).flatten(0, 2)  # (B·h·w, C)
        own = chosen[(chosen >= start) & (chosen < start + len(patches))] - start
        found.append(patches[own.to(patches.device)])
        start += len(batch.image_ids) * positions
    return torch.cat(found)
