"""A probe: a detector's scores of a few fixed images, stored with the detector to compare its successor with it.

A probe has three groups: images that purification kept, images that it rejected, and images with a label that are set
aside for testing, which no detector learnt. A hash
of the image id chooses the images, so the same images are chosen whenever they are there. A successor scores the same
images. Images that have left the data since then are left out.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llbnad.detectors.base import judge
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.utils.hashing import stable_shuffle

PURPOSE = "probe"
GROUPS = ("kept", "rejected", "labelled")


@dataclass(frozen=True)
class Probe:
    """Scores by image id, and the other numbers that a successor is compared with."""

    kept: Mapping[str, float]
    rejected: Mapping[str, float]
    labelled: Mapping[str, float]
    anomalous: Mapping[str, bool]  # label of each labelled image
    kept_share: float  # share of the training images that was kept
    threshold: float | None = None
    n_overruled: int = 0  # images whose status people changed; versions of earlier releases do not say

    def content(self) -> dict[str, Any]:
        """Return the probe as JSON values. A score that is not finite becomes null, because JSON has no NaN."""
        groups = {name: {i: s if math.isfinite(s) else None for i, s in getattr(self, name).items()} for name in GROUPS}
        return {**vars(self), **groups}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Probe":
        """Rebuild a probe from the result of `content`."""
        groups = {name: {i: math.nan if s is None else s for i, s in content[name].items()} for name in GROUPS}
        return cls(**{**content, **groups})


def take_probe(
    model: Model,
    features: FeatureSource,
    kept: Iterable[str],
    rejected: Iterable[str],
    labels: Mapping[str, bool],
    size: int,
    threshold: float | None = None,
    n_overruled: int = 0,
) -> Probe:
    """Choose up to `size` images of each group and score them.

    Args:
        model: the detector.
        features: features of the images.
        kept: ids of the training images that purification kept.
        rejected: ids of the training images that it rejected.
        labels: whether an image is anomalous, by id, for test images with a label.
        size: images per group; up to half of the labelled group is normal, up to half anomalous.
        threshold: value of the model's threshold, if it has one.
        n_overruled: training images whose status people changed.
    """
    kept, rejected = set(kept), set(rejected)
    normal = _chosen((image_id for image_id, anomalous in labels.items() if not anomalous), -(-size // 2))
    defects = _chosen((image_id for image_id, anomalous in labels.items() if anomalous), -(-size // 2))
    return Probe(
        kept=score_images(model, features, _chosen(kept, size)),
        rejected=score_images(model, features, _chosen(rejected, size)),
        labelled=score_images(model, features, normal + defects),
        anomalous={image_id: labels[image_id] for image_id in sorted(normal + defects)},
        kept_share=len(kept) / max(1, len(kept) + len(rejected)),
        threshold=threshold,
        n_overruled=n_overruled,
    )


def retake(
    probe: Probe, model: Model, features: FeatureSource, available: Collection[str], tested: Collection[str], own: Probe
) -> tuple[Probe, Probe]:
    """Return `probe` restricted to the images still `available`, and a probe of `model` on the same images.

    Args:
        probe: probe of the champion.
        model: the challenger.
        features: features of the images.
        available: ids of the images that exist.
        tested: ids of the images that are set aside for testing; no others count as labelled.
        own: the challenger's own probe, whose other numbers the second result takes.
    """
    known = {name: _within(getattr(probe, name), tested if name == "labelled" else available) for name in GROUPS}
    anomalous = _within(probe.anomalous, tested)
    new = {name: score_images(model, features, known[name]) for name in GROUPS}
    return _with_scores(probe, known, anomalous), _with_scores(own, new, anomalous)


def _with_scores(probe: Probe, scores: Mapping[str, Mapping[str, float]], anomalous: Mapping[str, bool]) -> Probe:
    kept, rejected, labelled = (scores[name] for name in GROUPS)
    return replace(probe, kept=kept, rejected=rejected, labelled=labelled, anomalous=anomalous)


def score_images(model: Model, features: FeatureSource, image_ids: Iterable[str]) -> dict[str, float]:
    """Return scores by image id.

    `Model.score` would raise an error for a score that is not finite; here it is a finding.
    """
    scores: dict[str, float] = {}
    for batch in features.batches(sorted(image_ids), PURPOSE):
        scores.update(zip(batch.image_ids, judge(model.detector, batch)[1].tolist(), strict=True))
    return scores


def values(scores: Mapping[str, float], ids: Sequence[str] | None = None) -> np.ndarray:
    """Return the scores (N,) float64 in the order of `ids`, or of all images, sorted by id, if `ids` is None."""
    return np.array([scores[image_id] for image_id in (sorted(scores) if ids is None else ids)], np.float64)


def _chosen(image_ids: Iterable[str], count: int) -> list[str]:
    return stable_shuffle(image_ids, 0, PURPOSE)[:count]


def _within(values: Mapping[str, Any], available: Collection[str]) -> dict[str, Any]:
    return {image_id: value for image_id, value in values.items() if image_id in available}
