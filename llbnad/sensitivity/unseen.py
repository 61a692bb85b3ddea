"""The images that synthetic defects are drawn on: normal ones that the detector which is measured has not learnt.

Where labelled normal images are set aside for testing, these are taken, and the final detector itself is measured.
Elsewhere, as on a production line, the final detector has learnt every kept image. Then one fold of the kept images is
held out, as calibration does: a detector trained on the other folds is measured on it, at the final detector's
threshold, which comes from such detectors too. This costs one training on 4/5 of the images. To set images aside for
good would cost nothing, but take them away from every detector of a young line. Images that the policy or people
rejected are never taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from llbnad.data.manifest import NORMAL
from llbnad.features.source import FeatureSource
from llbnad.model.calibrate import assign_folds
from llbnad.model.model import Model, derived_seed, train
from llbnad.utils.hashing import stable_shuffle

FOLDS = 5  # K of the held-out fold; the usual number of calibration folds
PURPOSE = "sensitivity"


@dataclass(frozen=True)
class Unseen:
    """Images, and a detector that has learnt none of them."""

    model: Model
    images: pd.DataFrame  # manifest rows, sorted by image id
    whose: str  # which images and detector these are, in words


def unseen_images(
    model: Model, noisy: pd.DataFrame, kept: Sequence[str], features: FeatureSource, count: int, seed: int
) -> Unseen:
    """Choose up to `count` images, and the detector to measure on them.

    Args:
        model: the final detector.
        noisy: manifest of the scenario, train and test.
        kept: ids of the images that it learnt.
        features: features of these images, with the patches to learn from.
        count: most images.
        seed: seed of the scenario.

    Raises:
        DataError: no image is set aside for testing, and the kept ones are of one sample.
    """
    tested = noisy[(noisy["split"] == "test") & (noisy["anomaly_class"] == NORMAL)]
    if len(tested):
        return Unseen(model, _chosen(tested, count, seed), "normal test images")
    learnt = noisy[noisy["image_id"].isin(kept)]
    fold = assign_folds(learnt, FOLDS, seed)
    first = fold.min()
    others = fold.index[fold != first].tolist()
    other = train(model.encoder, model.config, features, others, derived_seed(seed, f"calibration {first}"))
    held_out = learnt[learnt["image_id"].isin(fold.index[fold == first])]
    whose = f"kept images that a detector trained on the other {len(others)} has not seen"
    other = replace(other, threshold=model.threshold, window=model.window, region=model.region)
    return Unseen(other, _chosen(held_out, count, seed), whose)


def _chosen(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    ids = stable_shuffle(rows["image_id"], seed, PURPOSE)[:count]
    return rows[rows["image_id"].isin(ids)].sort_values("image_id")
