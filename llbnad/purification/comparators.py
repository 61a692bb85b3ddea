"""Comparators of the purified training set: the same detector, trained on other choices of the same images.

`none` trains on all images, without purification. `oracle` trains on the truly normal images, which is the best any
purification can do. `random` trains on as many images as were kept, drawn blindly. It shows how much of a gain comes
from the size of the set alone.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from llbnad.config import METHOD, Comparator, DetectorConfig, EncoderConfig
from llbnad.data.manifest import has_labels, is_anomalous
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model, derived_seed, train
from llbnad.purification.patches import Maps, TrustedFeatures
from llbnad.utils.hashing import stable_shuffle


def training_sets(
    train: pd.DataFrame, kept: Sequence[str], comparators: Sequence[Comparator], seed: int
) -> dict[str, tuple[str, ...]]:
    """Return the image ids that each method trains on, sorted; `llbnad` comes first.

    Args:
        train: manifest rows of the noisy training set.
        kept: ids of the images that purification kept.
        comparators: the comparators wanted; `oracle` is left out if a label is missing.
        seed: seed of `random`.
    """
    sets = {METHOD: tuple(sorted(kept))}
    for name in comparators:
        if name == "none":
            sets[name] = tuple(sorted(train["image_id"]))
        elif name == "oracle" and has_labels(train):
            sets[name] = tuple(sorted(train["image_id"][~is_anomalous(train).astype(bool)]))
        elif name == "random":
            sets[name] = tuple(sorted(stable_shuffle(train["image_id"], seed, "random comparator")[: len(kept)]))
    return sets


def train_methods(
    sets: Mapping[str, tuple[str, ...]],
    trusted: Mapping[str, Maps],
    features: FeatureSource,
    encoder: EncoderConfig,
    detector: DetectorConfig,
    seed: int,
) -> dict[str, Model]:
    """Train the final detector of each method. Methods that learn from the same whole images share one model.

    Args:
        sets: image ids that each method trains on, see `training_sets`.
        trusted: masks of the patches to learn from, by method; a method without masks learns from whole images.
        features: features of all these images.
        encoder: settings of the encoder.
        detector: settings of the detector.
        seed: seed of the scenario.
    """
    own_seed = derived_seed(seed, "detector")
    whole: dict[tuple[str, ...], Model] = {}  # methods may share a set: at α = 0, none and oracle do
    models = {}
    for method, chosen in sets.items():
        if patches := trusted.get(method):
            models[method] = train(encoder, detector, TrustedFeatures(features, patches), chosen, own_seed)
            continue
        if chosen not in whole:
            whole[chosen] = train(encoder, detector, features, chosen, own_seed)
        models[method] = whole[chosen]
    return models
