"""The sub-models of stage 1 (arXiv 2508.07441): one detector per part of the training set."""

from collections.abc import Collection

import pandas as pd

from llbnad.errors import TooFewImagesError
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model, derived_seed, train
from llbnad.purification.partition import subset_numbers, training_masks
from llbnad.scenario import ScenarioSettings


def train_sub_model(
    number: int,
    features: FeatureSource,
    subsets: pd.Series,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
) -> tuple[Model, list[str]]:
    """Train sub-model `number`.

    Args:
        number: 0 … T-1.
        features: features of the training images.
        subsets: subset 0 … T-1 of each training image, indexed by image id.
        settings: encoder, detector, partition and seed.
        kept: ids of the only images to learn from; None means all.

    Raises:
        TooFewImagesError: the detector needs more images.

    Returns:
        the model, and the ids of the images that it learnt from.
    """
    masks = training_masks(subsets, len(subset_numbers(subsets)), settings.partition)
    own = subsets.index[masks[:, number]].tolist()
    if kept is not None:
        own = sorted(set(own).intersection(kept))
    seed = derived_seed(settings.seed, f"sub_model {number}")
    try:
        return train(settings.encoder, settings.stage_1_detector, features, own, seed), own
    except TooFewImagesError as error:
        among = len(subsets) if kept is None else len(kept)
        held = "has" if settings.partition == "disjoint" else "leaves"
        fewer = "--subsets 2, another seed or " if among >= 4 and subsets.max() > 1 else ""
        raise TooFewImagesError(
            f"of {among} images subset {number} {held} {len(own)}, and {error}: use {fewer}more images"
        ) from None
