"""Calibration of the final detector's thresholds on the purified images, without any label.

The kept images are divided into K folds by sample. For each fold, a detector is trained on the other folds and scores
the held-out fold. Such a detector saw (K-1)/K of the images that the final detector sees, so its scores of unseen
normal images are at most a little above the final detector's. Stage 1's out-of-fold scores would not do. A sub-model
saw 1/T of the images, so unfamiliar normal images score higher, and a threshold from these scores would be biased
upwards. Defects among the sub-model's own images pull some scores down again.

The kept images are neither all normal images nor only normal images. The policy rejected the oddest normal images, so
the false-positive rate on all normal images is above the target, by up to the share of normal images rejected. A kept
defect scores high and raises a conformal threshold, which lowers both the false-positive rate and the recall. The bound
of `llbnad.model.robust_bound` limits this. Where labelled images are set aside for testing, the metric
`fpr_at_threshold` shows the true rate. On images that the detector learnt, it would be too low.

Images that follow each other may be alike. Then a held-out image finds its neighbours among those that were learnt, and
the threshold is too low for the next part. `look_for_bursts` asks the scores whether that is so; if it is, folds hold
neighbours out together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llbnad.config import CalibrationConfig, DetectorConfig, EncoderConfig
from llbnad.data.canvas import off_canvas
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.encoders.canvases import canvas_of
from llbnad.errors import DataError
from llbnad.features.source import FeatureSource
from llbnad.model.bursts import FEWEST_BURSTS, HIGH, LENGTH, Bursts, bursts_of
from llbnad.model.model import Model, derived_seed, train
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.scores import Scores
from llbnad.model.threshold import Threshold, threshold_at
from llbnad.regions.find import region_level
from llbnad.utils.hashing import deal, stable_shuffle


def calibrate(
    kept: pd.DataFrame,
    features: FeatureSource,
    encoder: EncoderConfig,
    detector: DetectorConfig,
    calibration: CalibrationConfig,
    seed: int,
    region: RegionOfInterest | None = None,
) -> tuple[Threshold | None, PixelThreshold | None]:
    """Return the thresholds of images and of regions for `calibration.target_fpr`; None twice if `folds` is 0.

    Args:
        kept: manifest rows of the purified images.
        features: features of these images.
        encoder: settings of the final detector's encoder.
        detector: settings of the final detector.
        calibration: target, number of folds, bound, unsure and smallest area of a region.
        seed: seed of the scenario.
        region: the part of each image that counts; None: the whole image.

    Raises:
        DataError: there are too few samples for two folds, or for two bursts.
    """
    if calibration.folds == 0:
        return None, None
    trainer, asked = FoldTrainer(features, encoder, detector, seed), None
    length = 1 if calibration.burst == "auto" else calibration.burst
    found = out_of_fold(in_bursts(kept, length), trainer, calibration.folds, calibration.min_area, region)
    if length == 1:
        asked = look_for_bursts(kept, trainer, calibration.folds, found.scores)
    if asked is not None and asked.alike and calibration.burst == "auto":
        asked = replace(asked, held_out_together=True)
        found = out_of_fold(in_bursts(kept, LENGTH), trainer, calibration.folds, calibration.min_area, region)
    rate, bound = calibration.target_fpr, calibration.bound
    threshold = replace(threshold_at(found.scores.values, rate, bound, calibration.unsure), bursts=asked)
    return threshold, PixelThreshold(threshold_at(found.levels, rate, bound, unsure=False), found.min_area)


def in_bursts(kept: pd.DataFrame, length: int) -> pd.DataFrame:
    """Return the rows with `length` samples in a row, by path, as one sample, which a fold holds out together.

    Raises:
        DataError: all of them are one burst.
    """
    if length == 1:
        return kept
    bursts = bursts_of(kept, length)
    if bursts.nunique() < 2:
        raise DataError(
            f"calibration.burst {length} leaves one burst of {kept['sample_id'].nunique()} samples, and folds need "
            "two: set it to half of the samples or fewer, or to auto"
        )
    return kept.assign(sample_id=bursts.astype(str))


@dataclass(frozen=True)
class FoldTrainer:
    """Trains the detectors of one calibration, which differ only in the images that are held out."""

    features: FeatureSource
    encoder: EncoderConfig
    detector: DetectorConfig
    seed: int  # of the scenario

    def trained_on(self, image_ids: Sequence[str], purpose: str) -> Model:
        """Return a detector of these images; `purpose` is part of its seed."""
        return train(self.encoder, self.detector, self.features, image_ids, derived_seed(self.seed, purpose))


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The kept images as detectors see them that did not learn them."""

    scores: Scores
    levels: np.ndarray  # (N,) float32 region levels in the order of the scores (`llbnad.regions.find.region_level`)
    min_area: float  # smallest area of a region that they are for, as a share of the image


def out_of_fold(
    kept: pd.DataFrame,
    trainer: FoldTrainer,
    folds: int,
    min_area: float = 0.0,
    region: RegionOfInterest | None = None,
) -> OutOfFold:
    """Return scores and region levels of all `kept` images. No detector saw an image of the sample that it scores.

    `min_area` is a share of the image; 0 stands for one patch.

    Raises:
        DataError: all images are in one fold.
    """
    fold, frames = assign_folds(kept, folds, trainer.seed), canvas_of(trainer.encoder).frames(kept, region)
    parts, levels, share = [], [], min_area
    for number in sorted(set(fold)):
        held_out, others = (fold.index[chosen].tolist() for chosen in (fold == number, fold != number))
        model = trainer.trained_on(others, f"calibration {number}")
        scores, maps = model.score_with_maps(trainer.features, held_out, f"calibration fold {number}", np.float32)
        parts.append(scores)
        maps = off_canvas(maps, frames)
        share = share or max(1 / one.size for one in maps.values())
        levels += [region_level(maps[image_id], share) for image_id in scores.image_ids]
    ids = tuple(image_id for part in parts for image_id in part.image_ids)
    scores = Scores(ids, np.concatenate([part.values for part in parts]))
    return OutOfFold(scores, np.asarray(levels, np.float32), share)


def look_for_bursts(kept: pd.DataFrame, trainer: FoldTrainer, folds: int, scores: Scores) -> Bursts | None:
    """Hold out one in `folds` of the bursts, and count their images that score high, before and now.

    Args:
        kept: manifest rows of the images that calibration used.
        trainer: how the detector is trained.
        folds: number of calibration folds; as many images are held out as in one of them.
        scores: scores of all `kept` images, each held out alone.

    Returns:
        the counts; None if there are fewer than `FEWEST_BURSTS` bursts.
    """
    bursts = bursts_of(kept, LENGTH)
    names = sorted(set(bursts))
    if len(names) < FEWEST_BURSTS:
        return None
    chosen = stable_shuffle(map(str, names), trainer.seed, "bursts")[: max(1, round(len(names) / folds))]
    held = bursts.astype(str).isin(chosen)
    ids, others = (sorted(kept["image_id"][rows]) for rows in (held, ~held))
    model = trainer.trained_on(others, "bursts")
    level = np.quantile(scores.values, 1 - HIGH)
    together = model.score(trainer.features, ids, "neighbours held out").of(ids)
    return Bursts(len(ids), int((scores.of(ids) > level).sum()), int((together > level).sum()))


def assign_folds(kept: pd.DataFrame, folds: int, seed: int) -> pd.Series:
    """Return the fold 0 … K-1 of each image, indexed by image id and sorted by it.

    A hash of the sample decides (`llbnad.utils.hashing.deal`), so from 100 samples on, an image keeps its fold when
    others arrive.

    Raises:
        DataError: there is one sample only.
    """
    kept = kept.sort_values("image_id")
    numbers = kept["sample_id"].map(deal(kept["sample_id"], folds, seed, "calibration"))
    if numbers.nunique() < 2:
        raise DataError(
            f"{kept['sample_id'].nunique()} samples are too few for {folds} calibration folds: "
            "more images are needed, or calibration.folds: 0 for a detector without a threshold"
        )
    return pd.Series(numbers.to_numpy(), index=pd.Index(kept["image_id"], name="image_id"), name="fold", dtype="int64")
