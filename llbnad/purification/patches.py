"""Patch purification: what is suspicious inside the images that are kept does not teach the final detector either.

A defect that is small, or alike in many images, hides from an image's score: on magnetic tiles at α = 0.4, three in ten
of what a cut that keeps most images lets through are defective. Stage 1 also says *where*: the out-of-fold maps of
the sub-models. Of all training patches, the share `patch_rejection` × (share of images rejected) that scores highest is
not learnt from. So a set that the policy finds clean is left whole, and more is dropped the more contaminated it looks.

SoftPatch (arXiv 2403.14233) drops a fixed 15 % of the patches of any set, judged within one model; the maps here are
of models that have not seen the image. The comparison is in `benchmarks/results/purification.csv`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from llbnad.config import Partition
from llbnad.errors import SubModelsError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.purification.partition import training_masks

Maps = Mapping[str, np.ndarray]


def out_of_fold_maps(
    per_model: Sequence[Maps], subsets: pd.Series, partition: Partition = "disjoint"
) -> dict[str, np.ndarray]:
    """Each training image's patch map, averaged over the sub-models that did not train on it.

    Args:
        per_model: T sub-models' maps (h, w) by image id; a single sub-model's maps are taken as they are.
        subsets: subset 0 … T-1 of each image, indexed by image id.
        partition: what the sub-models learnt from.

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


def trusted_patches(maps: Maps, kept: Sequence[str], patch_rejection: float) -> dict[str, np.ndarray]:
    """The patches of the kept images to learn from.

    Args:
        maps: out-of-fold maps (h, w) of all training images, by id.
        kept: ids of those it kept.
        patch_rejection: share of patches dropped per share of images rejected; 0 drops none.

    Returns:
        (h, w) bool by image id, sorted; empty where every patch is trusted. An image of which nothing is trusted keeps
        its least suspicious patch, so that no image vanishes here.
    """
    share = min(0.5, patch_rejection * (1 - len(kept) / len(maps)))
    if share <= 0:
        return {}
    values = np.concatenate([maps[image_id].ravel() for image_id in sorted(maps)])
    position = int((len(values) - 1) * (1 - share))
    cut = np.partition(values, position)[position]
    return {image_id: maps[image_id] <= max(cut, maps[image_id].min()) for image_id in sorted(kept)}


class TrustedFeatures:
    """A feature source that says which patches to learn from.

    Args:
        features: where the features come from.
        trusted: (h, w) bool by image id; images without an entry are trusted whole.
    """

    def __init__(self, features: FeatureSource, trusted: Maps) -> None:
        self.features = features
        self.trusted = trusted

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """The batches of `features` with `trusted` set."""
        import torch

        for batch in self.features.batches(image_ids, description):
            known = [self.trusted.get(image_id) for image_id in batch.image_ids]
            shape = next((mask.shape for mask in known if mask is not None), None)
            if shape is None:
                yield batch
                continue
            masks = np.stack([np.ones(shape, bool) if mask is None else mask for mask in known])
            yield batch.trusting(torch.from_numpy(masks))
