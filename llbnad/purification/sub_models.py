"""The sub-models of stage 1 (arXiv 2508.07441): a detector for each part of the training set."""

from collections.abc import Collection

import pandas as pd

from llbnad.features.source import FeatureSource
from llbnad.model.model import Model, derived_seed, train
from llbnad.purification.partition import training_masks
from llbnad.scenario import ScenarioSettings


def train_sub_model(
    number: int,
    features: FeatureSource,
    subsets: pd.Series,
    num_subsets: int,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
) -> tuple[Model, list[str]]:
    """Train sub-model `number`.

    Args:
        number: 0 … T-1.
        features: of the training images.
        subsets: subset of each training image, indexed by image id.
        num_subsets: T.
        settings: encoder, detector, partition, seed.
        kept: learn only from these images; None: from all.

    Returns:
        the model, and the ids of the images it learnt from.
    """
    own = subsets.index[training_masks(subsets, num_subsets, settings.partition)[:, number]].tolist()
    if kept is not None:
        own = sorted(set(own).intersection(kept))
    seed = derived_seed(settings.seed, f"sub_model {number}")
    return train(settings.encoder, settings.stage_1_detector, features, own, seed), own
