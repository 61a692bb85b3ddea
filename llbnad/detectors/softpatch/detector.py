"""SoftPatch: PatchCore with a judgement of every training patch. The noisiest patches are dropped, the others weighted.

A patch is compared with the patches of all other images at the same position. The share `discard` of patches with the
highest outlier factors never enters the memory. The factor of a patch in the memory multiplies the distances to it.
Images must be aligned: a position must mean the same place of the product.

References: Jiang et al., "SoftPatch: Unsupervised Anomaly Detection with Noisy Data", NeurIPS 2022 (arXiv 2403.14233);
LOF: Breunig et al., SIGMOD 2000.
Differences: factors are scaled to a median of 1, so that the three discriminators weigh alike; the memory is random by
default (see `llbnad.detectors.patchcore.coreset`).

Features are read at least twice. First, groups of positions are judged; a group holds as many positions of all images
as fit into GATHERED_BLOCKS blocks of working memory. Then the memory is collected. Beside that, one factor per training
patch is kept.
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
from llbnad.errors import TooFewImagesError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.working_memory import block_bytes

if TYPE_CHECKING:
    import torch

GATHERED_BLOCKS = 32  # memory for features judged at once, in units of `block_bytes()`; usually 512 MiB


class SoftpatchConfig(DetectorConfig):
    """Settings of `Softpatch`."""

    name: Literal["softpatch"] = "softpatch"
    discriminator: Literal["lof", "gaussian", "nearest"] = "lof"  # compares a patch with other patches at its position
    discard: float = Field(0.15, ge=0, lt=1)  # share of all training patches that is dropped; the paper's threshold
    lof_neighbours: int = Field(6, ge=1)  # k of the local outlier factor
    soft_weights: bool = True  # multiply a distance by its neighbour's outlier factor
    memory: Literal["random", "greedy"] = "random"  # which patches are kept: any, or the farthest apart
    memory_size: int = Field(8192, ge=1)  # number of patches kept
    oversampling: int = Field(2, ge=1)  # greedy chooses from this many candidates per patch kept


class Softpatch:
    """Nearest-neighbour detector. Distances lie in [0, 2] and are multiplied by an outlier factor around 1."""

    config_class: ClassVar = SoftpatchConfig

    def __init__(self, config: SoftpatchConfig) -> None:
        import torch

        self.config = config
        self.memory = torch.empty(0, 0)  # (M, C)
        self.weights = torch.empty(0)  # (M,) outlier factor of each patch in the memory

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Judge the patches of `image_ids` and fill the memory with patches that pass.

        Raises:
            TooFewImagesError: there are fewer than 2 images.
        """
        import torch

        image_ids = sorted(image_ids)
        if len(image_ids) < 2:
            raise TooFewImagesError(f"softpatch needs at least 2 training images, got {len(image_ids)}")
        factors = self._factors(features, image_ids).flatten()  # (N·h·w,), infinite for patches that do not count
        keep = max(1, math.ceil((1 - self.config.discard) * int(factors.isfinite().sum())))
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
        """Return distances (B, h, w) to the nearest patch of the memory, times that patch's factor."""
        patches = patch_vectors(batch)
        distances, indices = nearest_neighbours(patches.flatten(0, 2), self.memory.to(patches.device))
        if self.config.soft_weights:
            distances = distances * self.weights.to(patches.device)[indices]
        return distances.reshape(patches.shape[:3])

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the memory and its weights, by name."""
        return {"memory": self.memory.cpu().contiguous(), "weights": self.weights.cpu().contiguous()}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the trained detector from the result of `tensors`."""
        self.memory, self.weights = tensors["memory"], tensors["weights"]

    def _factors(self, features: FeatureSource, image_ids: list[str]) -> "torch.Tensor":
        """Return outlier factors (N, h·w) with a median of 1, or with a median of 1 above 0 if most factors are 0.

        A patch that does not count (`Batch.inside_on`) has the factor infinity.
        """
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
        inside = [batch.inside_on(first.shape[1:3]) for batch in features.batches(image_ids, "fit")]
        masks = [mask.flatten(1) for mask in inside if mask is not None]
        counted = factors[torch.cat(masks).to(factors.device)] if masks else factors
        typical = counted.median()
        if typical == 0:  # a constant background: most patches are equal in all images
            typical = counted[counted > 0].median() if counted.any() else torch.ones_like(typical)
        factors = factors / typical
        return factors.masked_fill(~torch.cat(masks).to(factors.device), torch.inf) if masks else factors


def _collect(features: FeatureSource, image_ids: list[str], chosen: "torch.Tensor", positions: int) -> "torch.Tensor":
    """Return the patches (M, C) with the flat indices `chosen` (M,), ascending: image · positions + position."""
    import torch

    found, start = [], 0
    for batch in features.batches(image_ids, "memory"):
        patches = patch_vectors(batch).flatten(0, 2)  # (B·h·w, C)
        own = chosen[(chosen >= start) & (chosen < start + len(patches))] - start
        found.append(patches[own.to(patches.device)])
        start += len(batch.image_ids) * positions
    return torch.cat(found)
