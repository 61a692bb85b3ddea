"""The protocol of detectors, the patch embedding that they share, and the image score.

A detector reads features, or images if its config says so (`DetectorConfig.uses_features`). It fits on a stream of
batches, returns an anomaly map on a grid of patches, and is saved as named tensors. The image score is the mean of the
highest 1 % of the patch map. It is the same in stage 1, in the test and in prediction.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from llbnad.errors import DataError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.hashing import stable_number, stable_shuffle

if TYPE_CHECKING:
    import torch

TOP_SHARE = 0.01  # share of a map's patches, at least one patch, whose mean is the image score

Vectors = Literal["unit", "raw"]


class Detector(Protocol):
    """An anomaly detector. Higher values are more anomalous; their unit is the detector's own."""

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Learn what is normal from `image_ids`. Their order must not change the result."""
        ...

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Return anomaly maps (B, h, w) float32 on the patch grid."""
        ...

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return everything that was learnt, by name."""
        ...

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the trained detector from the result of `tensors`."""
        ...


def image_scores(maps: "torch.Tensor", inside: "torch.Tensor | None" = None) -> "torch.Tensor":
    """Return image scores: the mean of the highest 1 % of each map, (B, h, w) -> (B,).

    Args:
        maps: (B, h, w).
        inside: (B, h, w) bool: the patches that count; None means all.
    """
    import torch

    if inside is not None:
        return torch.cat([image_scores(one[None, None, own]) for one, own in zip(maps, inside, strict=True)])
    flat = maps.flatten(1)  # (B, h·w)
    return flat.topk(scored_patches(flat.shape[1]), dim=1).values.mean(dim=1)


def scored_patches(patches: int) -> int:
    """Return how many patches the score of an image with `patches` patches is the mean of."""
    return max(1, math.ceil(TOP_SHARE * patches))


def judge(detector: Detector, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return a detector's maps (B, h, w) and the image scores (B,). Patches that do not count are 0 and not scored.

    Raises:
        DataError: an image has no patch that counts.
    """
    maps = detector.patch_maps(batch)
    inside = batch.inside_on(maps.shape[1:])
    if inside is not None:
        inside = inside.to(maps.device)
        maps = maps * inside
    return maps, image_scores(maps, inside)


def embed(maps: "Sequence[torch.Tensor]", vectors: Vectors = "unit") -> "torch.Tensor":
    """Return locally aware patch features (B, h, w, ΣC_l) on the grid of the first layer, which is the finest.

    Each layer is averaged over 3 × 3 neighbours and resized bilinearly (PatchCore, arXiv 2106.08265, section 3.1).

    Args:
        maps: one tensor (B, C_l, h_l, w_l) per layer, finest first.
        vectors: `unit` scales the vectors of every layer to equal length, and the joined vectors to length 1. Distances
            then lie in [0, 2], and all layers weigh alike. `raw` does not scale, as in PatchCore.
    """
    import torch
    from torch.nn import functional

    grid = maps[0].shape[-2:]
    layers = []
    for layer in maps:
        pooled = functional.avg_pool2d(layer, 3, stride=1, padding=1, count_include_pad=False)
        if pooled.shape[-2:] != grid:
            pooled = functional.interpolate(pooled, size=grid, mode="bilinear", align_corners=False)
        layers.append(functional.normalize(pooled, dim=1) / len(maps) ** 0.5 if vectors == "unit" else pooled)
    return torch.cat(layers, dim=1).permute(0, 2, 3, 1).contiguous()  # (B, h, w, C)


def patch_vectors(batch: Batch, vectors: Vectors = "unit") -> "torch.Tensor":
    """Return the batch's patch features (B, h, w, C), see `embed`. Detectors that read the same batch share them."""
    return batch.once(f"{vectors} patch vectors", lambda: embed(batch.maps, vectors))


def draw_patches(
    features: FeatureSource,
    image_ids: Sequence[str],
    count: int,
    seed: int,
    detector: str,
    vectors: Vectors = "unit",
) -> "torch.Tensor":
    """Draw up to `count` patches (P, C) at random, without replacement. The order of `image_ids` does not matter.

    Each image orders its own patches at random and contributes the first ones. The number of patches per image differs
    by at most one. Two training sets that share most images therefore share most patches. A comparison then shows the
    effect of the images that differ, not of another draw, and a detector changes little when a few images arrive.

    Patches that are not trusted (`Batch.trusted`) are not drawn. Memory: `count` patches and one batch, however many
    images there are.

    Args:
        features: features of the images.
        image_ids: ids of the images.
        count: patches to draw.
        seed: decides the draw, together with the image ids.
        detector: name of the detector, for the error message.
        vectors: see `embed`.

    Raises:
        DataError: there is no image.
    """
    import torch

    if not image_ids:
        raise DataError(f"no training image for {detector}: at least 1 is needed")
    each, remainder = divmod(count, len(image_ids))
    generous = set(stable_shuffle(image_ids, seed, "one patch more")[:remainder])
    drawn, filled = torch.empty(0, 0), 0
    # with fewer patches than images, only the images that contribute one are read
    for batch in features.batches(sorted(image_ids if each else generous), "fit"):
        embedded = patch_vectors(batch, vectors)
        trusted = batch.trusted_on(embedded.shape[1:3])
        patches = embedded.flatten(1, 2)  # (B, h·w, C)
        if not filled:
            # one allocation for all: small tensors that stay between large ones would keep glibc from reusing its heap
            drawn = patches.new_empty(min(count, len(image_ids) * patches.shape[1]), patches.shape[2])
        for number, (image_id, image) in enumerate(zip(batch.image_ids, patches, strict=True)):
            generator = torch.Generator().manual_seed(stable_number(image_id, seed, "patches") >> 1)
            order = torch.randperm(len(image), generator=generator)
            if trusted is not None:
                order = order[trusted[number].flatten()[order]]
            order = order[: each + (image_id in generous)].to(image.device)
            torch.index_select(image, 0, order, out=drawn[filled : filled + len(order)])
            filled += len(order)
    return drawn[:filled]
