"""The protocol every detector follows, the patch embedding they share, and the one image score.

A detector sees features, or images if it says so (`DetectorConfig.uses_features`): it fits on a stream of batches,
gives an anomaly map on a grid of patches, and is saved as named tensors. The image score is the same everywhere, in
stage 1, in the test and in prediction: the mean of the highest 1 % of the patch map.
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

TOP_SHARE = 0.01  # of the map's patches, at least one

Vectors = Literal["unit", "raw"]


class Detector(Protocol):
    """One anomaly detector. Higher values are more anomalous; their unit is the detector's own."""

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Learn what is normal from `image_ids`, whose order must not matter."""
        ...

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Anomaly maps (B, h, w) float32 on the patch grid."""
        ...

    def tensors(self) -> "dict[str, torch.Tensor]":
        """All that was learnt, by name."""
        ...

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take back what `tensors` gave."""
        ...


def image_scores(maps: "torch.Tensor") -> "torch.Tensor":
    """Image scores (B,) of patch maps (B, h, w): the mean of the highest 1 % of each map."""
    flat = maps.flatten(1)  # (B, h·w)
    count = max(1, math.ceil(TOP_SHARE * flat.shape[1]))
    return flat.topk(count, dim=1).values.mean(dim=1)


def embed(maps: "Sequence[torch.Tensor]", vectors: Vectors = "unit") -> "torch.Tensor":
    """Locally aware patch features: (B, C_l, h_l, w_l) a layer -> (B, h, w, ΣC_l) on the finest layer's grid.

    Each layer is averaged over 3 × 3 neighbours and resized bilinearly (PatchCore, arXiv 2106.08265, section 3.1).

    Args:
        maps: a layer each.
        vectors: `unit` scales each layer's vectors to equal length, and all layers together to length 1, so that
            distances lie in [0, 2] and every layer has the same say; `raw` leaves them as PatchCore does.
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
    """The batch's patch features (B, h, w, C), see `embed`; several detectors on one batch share them."""
    return batch.once(f"{vectors} patch vectors", lambda: embed(batch.maps, vectors))


def draw_patches(
    features: FeatureSource,
    image_ids: Sequence[str],
    count: int,
    seed: int,
    detector: str,
    vectors: Vectors = "unit",
) -> "torch.Tensor":
    """Up to `count` patches (P, C) drawn at random from `image_ids`, whose order does not matter; none twice.

    Every image orders its patches by a draw of its own and gives its first ones; the number may differ by one between
    images. So two training sets that share most images share most of their patches: what a comparison shows is the
    images left out, not another draw, and a detector changes little when a few images arrive.

    Patches that are not trusted (`Batch.trusted`) are not drawn. Memory: `count` patches and one batch, however many
    images there are: patches go into one space that is taken first, as small tensors that stay between large ones
    that go would keep glibc's heap from being used again (2.6 GB for 1,024 patches of 20,000 images).

    Raises:
        DataError: there is no image; the message names `detector`.
    """
    import torch

    if not image_ids:
        raise DataError(f"no training image for {detector}: at least 1 is needed")
    each, remainder = divmod(count, len(image_ids))
    generous = set(stable_shuffle(image_ids, seed, "one patch more")[:remainder])
    drawn, filled = torch.empty(0, 0), 0
    for batch in features.batches(sorted(image_ids), "fit"):
        embedded = patch_vectors(batch, vectors)
        trusted = batch.trusted_on(embedded.shape[1:3])
        patches = embedded.flatten(1, 2)  # (B, h·w, C)
        if not filled:
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
