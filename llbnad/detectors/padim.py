"""PaDiM: one Gaussian of patch features per position. The map is the Mahalanobis distance to it.

References: Defard et al., "PaDiM: a Patch Distribution Modeling Framework", ICPR 2020 workshops (arXiv 2011.08785).
Features are streamed into sums in float64, so the memory does not grow with the number of images.

Where some patches are not trusted (`llbnad.purification.patches`), a position's Gaussian is fitted on its trusted
patches only. These are too few if there are fewer than dimensions and fewer than half of the images. Then the Gaussian
is fitted on the patches of all images. This happens, for example, under a print that the sub-models find odd in every
image.

Patches that do not count (`Batch.inside_on`: padding, or outside of the region of interest) are in no Gaussian. A
position that too few images reach gets the Gaussian of all positions together, which is wide.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from llbnad.config import DetectorConfig
from llbnad.detectors.base import patch_vectors
from llbnad.errors import TooFewImagesError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.working_memory import block_bytes

if TYPE_CHECKING:
    import torch


# over the patches at each of P positions: count (P, 1), sum (P, d), sum of products (P, d, d)
Sums = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


class PadimConfig(DetectorConfig):
    """Settings of `Padim`."""

    name: Literal["padim"] = "padim"
    dimensions: int = Field(100, ge=1)  # feature channels kept, drawn at random
    regularisation: float = Field(0.1, gt=0)  # added to the covariance's diagonal, as a share of the mean variance


class Padim:
    """Position-wise Gaussian detector. Distances are Mahalanobis distances, in standard deviations."""

    config_class: ClassVar = PadimConfig

    def __init__(self, config: PadimConfig) -> None:
        import torch

        self.config = config
        self.channels = torch.empty(0, dtype=torch.int64)  # (d,)
        self.mean = torch.empty(0)  # (h, w, d)
        self.whitening = torch.empty(0)  # (h·w, d, d), lower triangular: inverse of the covariance's Cholesky factor

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Estimate mean and covariance of every position from `image_ids`.

        Raises:
            TooFewImagesError: there are fewer than 2 images.
        """
        import torch

        image_ids = sorted(image_ids)
        if len(image_ids) < 2:
            raise TooFewImagesError(f"padim needs at least 2 training images, got {len(image_ids)}")
        trusted: Sums | None = None
        masked = outside = False  # whether some patches are not trusted, or do not count
        grid = torch.Size()
        for batch in features.batches(image_ids, "fit"):
            patches = patch_vectors(batch)
            if not len(self.channels):
                grid = patches.shape[1:3]
                generator = torch.Generator().manual_seed(seed)
                order = torch.randperm(patches.shape[-1], generator=generator)[: self.config.dimensions]
                self.channels = order.sort().values.to(patches.device)
            chosen, masks = self._by_position(patches), batch.trusted_on(grid)
            weights = torch.ones_like(chosen[..., :1]) if masks is None else masks.flatten(1).T[..., None].to(chosen)
            trusted = _add(chosen, weights, trusted)
            masked = masked or masks is not None
            outside = outside or (masks is not None and batch.inside_on(grid) is not None)
        assert trusted is not None  # there are at least two images
        enough = max(2, min(len(self.channels), len(image_ids) // 2))
        few = trusted[0][:, 0] < enough
        if masked and few.any():
            for of_trusted, of_others in zip(trusted, self._others(features, image_ids, grid, few), strict=True):
                of_trusted[few] += of_others
        usual = torch.ones_like(few)
        if outside:
            few = trusted[0][:, 0] < enough
            usual = ~few | few.all()
            for sums in trusted:
                sums[few] += sums.sum(dim=0)
        count, total, covariance = trusted
        mean = total / count
        # in the place of the sums of products, because with many tiles one such tensor takes hundreds of megabytes
        for block in _blocks(covariance):
            covariance[block] -= count[block, :, None] * mean[block, :, None] * mean[block, None, :]
        covariance /= count[..., None] - 1
        # relative to the features' scale, because an absolute constant would drown the variances of unit vectors
        variance = (
            (covariance[usual] if outside else covariance).diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12)
        )  # 0 if all images are equal
        covariance += self.config.regularisation * variance * torch.eye(covariance.shape[-1], device=covariance.device)
        self.whitening = _whitening(covariance)
        self.mean = mean.float().reshape(*grid, -1)

    def _others(
        self, features: FeatureSource, image_ids: Sequence[str], grid: "torch.Size", few: "torch.Tensor"
    ) -> "Sums":
        """Return the sums over the patches that count and are not trusted, at the positions `few` (P,) bool.

        The images are read again for them: that is rare, and sums at all positions would double the memory.
        """
        import torch

        others: Sums | None = None
        for batch in features.batches(image_ids, "fit"):
            masks, inside = batch.trusted_on(grid), batch.inside_on(grid)
            if masks is not None:
                chosen = self._by_position(patch_vectors(batch))
                weights = masks.flatten(1).T[..., None].to(chosen)
                counted = torch.ones_like(weights) if inside is None else inside.flatten(1).T[..., None].to(chosen)
                others = _add(chosen[few], (counted - weights)[few], others)
        assert others is not None  # some patches are not trusted
        return others

    def _by_position(self, patches: "torch.Tensor") -> "torch.Tensor":
        """Return the chosen channels of patches (B, h, w, C) by position, (h·w, B, d) float64."""
        return patches[..., self.channels].flatten(1, 2).transpose(0, 1).double()

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Return Mahalanobis distances (B, h, w)."""
        patches = patch_vectors(batch)
        device = patches.device
        centred = patches[..., self.channels.to(device)] - self.mean.to(device)  # (B, h, w, d)
        whitened = self.whitening.to(device) @ centred.flatten(1, 2).permute(1, 2, 0)  # (h·w, d, B)
        return whitened.norm(dim=1).T.reshape(patches.shape[:3])

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return channels, means and whitening matrices, by name."""
        return {
            "channels": self.channels.cpu(),
            "mean": self.mean.cpu().contiguous(),
            "whitening": self.whitening.cpu().contiguous(),
        }

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the trained detector from the result of `tensors`."""
        self.channels, self.mean, self.whitening = tensors["channels"], tensors["mean"], tensors["whitening"]


def _whitening(covariance: "torch.Tensor") -> "torch.Tensor":
    """Return the inverse of the Cholesky factor of each covariance: (P, d, d) float64 -> float32, a block at a time."""
    import torch

    found = torch.empty_like(covariance, dtype=torch.float32)
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    for block in _blocks(covariance):
        factor = torch.linalg.cholesky(covariance[block])
        inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        found[block] = inverse.float()
    return found


def _add(patches: "torch.Tensor", weights: "torch.Tensor", sums: "Sums | None") -> "Sums":
    """Add the patches (P, B, d) whose weight (P, B, 1) is 1 to `sums`, and return them. None starts new sums."""
    chosen = patches * weights  # a patch of weight 0 becomes zeros, which add nothing to any sum
    count, total = weights.sum(dim=1), chosen.sum(dim=1)
    if sums is None:
        products = chosen.new_empty(len(chosen), chosen.shape[2], chosen.shape[2])
        for block in _blocks(products):
            products[block] = chosen[block].transpose(1, 2) @ chosen[block]
        return count, total, products
    for block in _blocks(sums[2]):
        sums[2][block] += chosen[block].transpose(1, 2) @ chosen[block]
    return sums[0].add_(count), sums[1].add_(total), sums[2]


def _blocks(matrices: "torch.Tensor") -> Iterator[slice]:
    """Yield slices of matrices (P, d, d), in order, each of at most `block_bytes()` of memory, or of one matrix."""
    size = max(1, block_bytes() // matrices[0].nbytes)
    yield from (slice(start, start + size) for start in range(0, len(matrices), size))
