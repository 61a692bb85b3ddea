"""Calibrate the final detector's threshold on the purified images, without a label.

K folds by physical sample: a detector trained on the other folds scores the held-out one. Each saw (K-1)/K of what the
final detector sees, so its scores of unseen normals are at the final detector's scale, a little above it at most. The
out-of-fold scores of stage 1 are not: a sub-model saw 1/T of the images, so normals it has not seen the like of score
higher, and a threshold from them is biased upwards; defects among what it saw pull some scores down again.

The scores are of what the policy kept, which is not all normal images and not only these. The oddest normal images were
rejected, so on all normal images the rate is above the target, by up to the share of normals rejected. A defect that
was kept scores high and raises the threshold, so the rate falls below the target, and so does the recall. Metric
`fpr_at_threshold` shows the true rate where labelled images are set aside for testing; of images the detector learnt it
would be too low. Solar cells (elpv mono, 176 normal ones), target 1 %: 0.6 % at α = 0, 2.8 % at α = 0.2.
"""

import numpy as np
import pandas as pd

from llbnad.config import CalibrationConfig, DetectorConfig, EncoderConfig
from llbnad.errors import DataError
from llbnad.features.source import FeatureSource
from llbnad.model.model import derived_seed, train
from llbnad.model.scores import Scores
from llbnad.model.threshold import Threshold, threshold_at
from llbnad.utils.hashing import stable_number


def calibrate(
    kept: pd.DataFrame,
    features: FeatureSource,
    encoder: EncoderConfig,
    detector: DetectorConfig,
    calibration: CalibrationConfig,
    seed: int,
) -> Threshold | None:
    """The threshold for `calibration.target_fpr`; None if `calibration.folds` is 0.

    Args:
        kept: manifest rows of the purified images.
        features: of these images.
        encoder: as of the final detector.
        detector: as of the final detector.
        calibration: target and folds.
        seed: the scenario's.

    Raises:
        DataError: there are too few samples for two folds.
    """
    if calibration.folds == 0:
        return None
    scores = out_of_fold_scores(kept, features, encoder, detector, calibration.folds, seed)
    return threshold_at(scores.values, calibration.target_fpr)


def out_of_fold_scores(
    kept: pd.DataFrame,
    features: FeatureSource,
    encoder: EncoderConfig,
    detector: DetectorConfig,
    folds: int,
    seed: int,
) -> Scores:
    """Scores of all `kept` images, each by a detector that saw no image of its sample."""
    fold = assign_folds(kept, folds, seed)
    parts = []
    for number in sorted(set(fold)):
        held_out, others = (fold.index[chosen].tolist() for chosen in (fold == number, fold != number))
        fold_seed = derived_seed(seed, f"calibration {number}")
        model = train(encoder, detector, features, others, fold_seed)
        parts.append(model.score(features, held_out, f"calibration fold {number}"))
    ids = tuple(image_id for part in parts for image_id in part.image_ids)
    return Scores(ids, np.concatenate([part.values for part in parts]))


def assign_folds(kept: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """The fold 0 … K-1 of each image, indexed by sorted image id; an image keeps it when others arrive.

    Raises:
        DataError: all images are in one fold.
    """
    kept = kept.sort_values("image_id")
    numbers = kept["sample_id"].map(lambda sample: stable_number(sample, seed, "calibration") % folds)
    if numbers.nunique() < 2:
        raise DataError(
            f"{kept['sample_id'].nunique()} samples are too few for {folds} calibration folds: "
            "more images are needed, or calibration.folds: 0 for a detector without a threshold"
        )
    return pd.Series(numbers.to_numpy(), index=pd.Index(kept["image_id"], name="image_id"), name="fold", dtype="int64")
