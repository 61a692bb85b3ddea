"""What the purified set has to be compared with: the same detector trained on other choices of the same images.

`none` is no purification at all; `oracle` the true normals only, the best any purification can do; `random` as many
images as were kept, drawn blindly, so that a gain cannot come from the set's size alone.
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
    """Image ids each method trains on, sorted; `llbnad` first.

    Args:
        train: manifest rows of the noisy training set.
        kept: image ids the purification kept.
        comparators: those wanted; `oracle` is left out where labels are missing.
        seed: of `random`.
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
        sets: image ids each method trains on, see `training_sets`.
        trusted: the patches to learn from, by method; a method without any learns from whole images.
        features: of all these images.
        encoder: settings of the encoder.
        detector: settings of the detector.
        seed: the scenario's.
    """
    own_seed = derived_seed(seed, "detector")
    whole: dict[tuple[str, ...], Model] = {}  # at α = 0, none and oracle are the same set
    models = {}
    for method, chosen in sets.items():
        if patches := trusted.get(method):
            models[method] = train(encoder, detector, TrustedFeatures(features, patches), chosen, own_seed)
            continue
        if chosen not in whole:
            whole[chosen] = train(encoder, detector, features, chosen, own_seed)
        models[method] = whole[chosen]
    return models
