"""What the purified set has to be compared with: the same detector trained on other choices of the same images.

`none` is no purification at all; `oracle` the true normals only, the best any purification can do; `random` as many
images as were kept, drawn blindly, so that a gain cannot come from the set's size alone.
"""

from collections.abc import Sequence

import pandas as pd

from llbnad.config import METHOD, Comparator
from llbnad.data.manifest import has_labels, is_anomalous
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
