"""Novelty: the images that a new detector has learnt as normal and the detector in use has not.

A detector that is retrained on whatever arrives follows its line wherever it goes. A failing lamp, a turned camera or
another product becomes normal one batch at a time, and every score looks good. The newly learnt images are therefore
compared with what was normal before, in two ways, because each way is blind to something: the detector in use decides
on them, and their statistics are compared with the statistics of the images that it learnt (`llbnad.monitoring.drift`).
Images that a person called normal do not count as new, because somebody has looked at them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold
from llbnad.monitoring.drift import DriftReport, drift_report

FEWEST_IMAGES = 8  # fewest images that can be judged


@dataclass(frozen=True)
class Alarm:
    """A newly learnt image that the detector in use calls a defect."""

    image_id: str
    path: str
    score: float  # of the detector in use
    label: str  # defect, or unsure where the score lies in the interval of the threshold


@dataclass(frozen=True)
class Novelty:
    """The newly learnt images as the detector in use sees them."""

    count: int  # newly learnt images
    alarms: tuple[Alarm, ...] | None = None  # highest score first; None if the detector in use cannot decide
    by_chance: float = 1.0  # probability of so many alarms if the images are like the calibration images
    drift: DriftReport | None = None  # against the images it learnt; None if there are too few images on a side


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
        learnt_before: ids of the images that it learnt; ids that are no longer in the manifest are left out.
        learnt_now: ids of the images that its successor learnt, without the images that people called normal.
        features: features of all images of the manifest.
        manifest: manifest of the line.
        image_root: folder that the manifest's paths are relative to.
        seed: seed of the drift report.
    """
    known = sorted(set(learnt_before) & set(manifest["image_id"]))
    new = sorted(set(learnt_now) - set(learnt_before))
    if len(new) < FEWEST_IMAGES:
        return Novelty(len(new))
    alarms, by_chance = None, 1.0
    if champion is not None and champion.threshold is not None:
        alarms = _alarms(champion, champion.threshold, features, new, manifest)
        by_chance = champion.threshold.chance_of_alarms(len(alarms), len(new))
    drift = drift_report(known, new, features, manifest, image_root, seed) if len(known) >= FEWEST_IMAGES else None
    return Novelty(len(new), alarms, by_chance, drift)


def _alarms(
    champion: Model, threshold: Threshold, features: FeatureSource, new: list[str], manifest: pd.DataFrame
) -> tuple[Alarm, ...]:
    scores = champion.score(features, new, "novelty").values
    paths = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    found = zip(new, scores.tolist(), threshold.labels(scores).tolist(), strict=True)
    above = [Alarm(one, paths[one], score, label) for one, score, label in found if score > threshold.value]
    return tuple(sorted(above, key=lambda one: (-one.score, one.image_id)))
