"""What a new detector has learnt as normal and the one in use had not.

A detector that is retrained on whatever arrives follows its line wherever it goes: a failing lamp, a camera that was
turned and another product become normal one batch at a time, and every score looks well. So the images that are newly
learnt are held against what was normal before, in two ways, because either is blind to something: the detector in use
decides on them, and their statistics are compared with those of the images it learnt (`llbnad.monitoring.drift`).
Images that a person called normal are not counted: somebody has looked.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.monitoring.drift import DriftReport, drift_report

ENOUGH = 8  # images below which nothing is said


@dataclass(frozen=True)
class Novelty:
    """The newly learnt images as the detector in use sees them."""

    count: int
    alarms: int | None = None  # how many it calls defects; None if it cannot say
    by_chance: float = 1.0  # probability of so many alarms if the images are like those it was calibrated on
    drift: DriftReport | None = None  # against the images it learnt; None if there are too few of either


def novelty(
    champion: Model | None,
    learnt_before: Collection[str],
    learnt_now: Collection[str],
    features: FeatureSource,
    manifest: pd.DataFrame,
    image_root: Path,
    seed: int,
) -> Novelty:
    """Judge the images of `learnt_now` that are not in `learnt_before`.

    Args:
        champion: the detector in use; None if it works on other features.
        learnt_before: ids of the images it learnt; those that are no longer in the manifest are left out.
        learnt_now: ids of the images its successor learnt, without those people called normal.
        features: of all images of the manifest.
        manifest: the line's images.
        image_root: what its paths are relative to.
        seed: of the drift report.
    """
    known = sorted(set(learnt_before) & set(manifest["image_id"]))
    new = sorted(set(learnt_now) - set(learnt_before))
    if len(new) < ENOUGH:
        return Novelty(len(new))
    alarms, by_chance = None, 1.0
    if champion is not None and champion.threshold is not None:
        alarms = int((champion.score(features, new, "novelty").values > champion.threshold.value).sum())
        rank = int((champion.threshold.scores <= champion.threshold.value).sum())
        by_chance = chance_of_alarms(alarms, len(new), champion.threshold.n, rank)
    drift = drift_report(known, new, features, manifest, image_root, seed) if len(known) >= ENOUGH else None
    return Novelty(len(new), alarms, by_chance, drift)


def chance_of_alarms(alarms: int, count: int, calibrated_on: int, rank: int) -> float:
    """Probability of at least `alarms` scores above the threshold among `count` new ones, if they are exchangeable
    with the calibration scores: the beta-binomial distribution, exact for any continuous distribution of scores.

    Args:
        alarms: how many were above it.
        count: new images.
        calibrated_on: n, calibration scores.
        rank: k; the threshold is the k-th smallest of them.
    """
    from scipy.stats import betabinom

    return float(betabinom.sf(alarms - 1, count, calibrated_on + 1 - rank, rank))
