"""Patch purification: the final detector does not learn from suspicious patches of the kept images.

A defect that is small, or that looks alike in many images, does not raise an image's score enough to be rejected. A cut
that keeps most images lets such defects through. The out-of-fold maps of the sub-models show where they are. A share of
all training patches is not learnt from: the patches with the highest scores. The share is `patch_rejection` × (share of
images rejected), at most one half. Nothing is dropped from a set that the policy finds clean, and more is dropped from
a set that looks more contaminated.

Difference to SoftPatch (arXiv 2403.14233), which drops a fixed 15 % of the patches of any set and judges them within
one model: the maps here come from models that did not learn from the image. `benchmarks/results/purification.csv`
compares both.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.config import Partition
from llbnad.data.canvas import Frame
from llbnad.errors import SubModelsError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.purification.partition import training_masks

Maps = Mapping[str, np.ndarray]


def out_of_fold_maps(
    per_model: Sequence[Maps], subsets: pd.Series, partition: Partition = "disjoint"
) -> dict[str, np.ndarray]:
    """Return each training image's patch map, averaged over the sub-models that did not train on it.

    Args:
        per_model: maps (h, w) by image id, one mapping per sub-model; the maps of a single sub-model are not averaged.
        subsets: subset 0 … T-1 of each image, indexed by image id.
        partition: which subsets the sub-models learnt from.

    Returns:
        (h, w) float16 by image id, sorted by it.

    Raises:
        SubModelsError: a sub-model has no map of an image.
    """
    found: dict[str, np.ndarray] = {}
    subsets = subsets.sort_index()
    trained = training_masks(subsets, len(per_model), partition)
    for image_id, learnt in zip(subsets.index.astype(str), trained, strict=True):
        if any(image_id not in maps for maps in per_model):
            raise SubModelsError(f"image {image_id} has no map of some sub-model: let every sub-model score all images")
        others = [maps[image_id] for maps, own in zip(per_model, learnt, strict=True) if not own or len(per_model) == 1]
        found[image_id] = np.stack(others).mean(axis=0, dtype=np.float32).astype(np.float16)
    return found


def trusted_patches(
    maps: Maps, kept: Sequence[str], patch_rejection: float, frames: Mapping[str, Frame] = MappingProxyType({})
) -> dict[str, np.ndarray]:
    """Return masks of the patches to learn from in the kept images.

    Args:
        maps: out-of-fold maps (h, w) of all training images, by id.
        kept: ids of the images that the policy kept.
        patch_rejection: share of patches dropped per share of images rejected; 0 drops none.
        frames: frames of the images whose patches do not all count; the other patches are no part of any share.

    Returns:
        (h, w) bool by image id, sorted. Empty if every patch is trusted. An image whose patches are all above the cut
        keeps its least suspicious patch, so that no image vanishes here.
    """
    share = min(0.5, patch_rejection * (1 - len(kept) / len(maps)))
    if share <= 0:
        return {}
    counted = {image_id: _counted(maps, image_id, frames).size for image_id in sorted(maps)}
    values = np.empty(sum(counted.values()), next(iter(maps.values())).dtype)  # one copy of all maps, and no other
    filled = 0
    for image_id, size in counted.items():
        values[filled : filled + size] = _counted(maps, image_id, frames).ravel()
        filled += size
    position = int((len(values) - 1) * (1 - share))
    values.partition(position)
    cut = values[position]
    return {image_id: maps[image_id] <= max(cut, _counted(maps, image_id, frames).min()) for image_id in sorted(kept)}


def _counted(maps: Maps, image_id: str, frames: Mapping[str, Frame]) -> np.ndarray:
    """Return the values of an image's map that count: all of them (h, w), or those inside its frame."""
    found = maps[image_id]
    return found[frames[image_id].inside(found.shape)] if image_id in frames else found


class TrustedFeatures:
    """A feature source whose batches say which patches to learn from.

    Args:
        features: the source of the features.
        trusted: masks (h, w) bool by image id; an image without a mask is trusted as a whole.
    """

    def __init__(self, features: FeatureSource, trusted: Maps) -> None:
        self.features = features
        self.trusted = trusted

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield the batches of `features` with `trusted` set."""
        import torch

        for batch in self.features.batches(image_ids, description):
            known = [self.trusted.get(image_id) for image_id in batch.image_ids]
            shape = next((mask.shape for mask in known if mask is not None), None)
            if shape is None:
                yield batch
                continue
            masks = np.stack([np.ones(shape, bool) if mask is None else mask for mask in known])
            yield batch.trusting(torch.from_numpy(masks))
