"""Noise protocols: a training set with a known share of anomalous samples, and a test set without overlap.

`replace` is Real-IAD's FUIAD protocol: α is the share of training *samples* (all views of one item together) that are
anomalous. Anomalous samples replace normal ones, so N stays constant. `add` leaves the normal samples in and adds ⌊α·N⌋
anomalous ones (SoftPatch, CVPR 2022 workshop protocol without overlap).

In both, the anomalous samples reserved for the largest α of the comparison never enter a test set. The test set is
therefore the same for every α. A smaller α injects a subset of the samples that a larger α injects.
"""

import math

import pandas as pd

from llbnad.config import InjectedNoise, Noise
from llbnad.data.manifest import has_labels, is_anomalous, training_images
from llbnad.errors import DataError
from llbnad.utils.hashing import stable_shuffle


def contaminate(manifest: pd.DataFrame, noise: Noise, seed: int) -> pd.DataFrame:
    """Return the noisy variant of `manifest`: the rows that take part, with `split` train or test.

    Raises:
        DataError: labels are missing, the training split is anomalous or empty, or there are too few anomalous samples.
    """
    if isinstance(noise, InjectedNoise):
        return _inject(manifest, noise, seed)
    variant = manifest.copy()
    variant["split"] = variant["split"].fillna("train")
    return _nonempty(variant)


def anomalous_samples(manifest: pd.DataFrame) -> set[str]:
    """Return the ids of the samples with a defect in at least one image."""
    return set(manifest["sample_id"][is_anomalous(manifest).fillna(False)])


def sample_contamination(manifest: pd.DataFrame) -> float | None:
    """Return the share of samples with a defect in [0, 1], or None if the manifest is empty or a label is missing.

    A protocol counts samples; with several views, fewer images than samples show the defect.
    """
    return len(anomalous_samples(manifest)) / manifest["sample_id"].nunique() if has_labels(manifest) else None


def promised_ratio(noisy: pd.DataFrame, noise: Noise) -> float | None:
    """Return the share of anomalous training samples that the protocol promises; None where nothing is injected.

    Args:
        noisy: what `contaminate` returned.
        noise: what it was given.
    """
    if not isinstance(noise, InjectedNoise):
        return None
    train = training_images(noisy)
    samples = train["sample_id"].nunique()
    normal = samples - len(anomalous_samples(train))
    return _share_of(samples if noise.protocol == "replace" else normal, noise.ratio) / samples


def _inject(manifest: pd.DataFrame, noise: InjectedNoise, seed: int) -> pd.DataFrame:
    if not has_labels(manifest):
        unlabelled = int(manifest["anomaly_class"].isna().sum())
        raise DataError(
            f"protocol {noise.protocol} injects known anomalies, but {unlabelled} of {len(manifest)} images have no "
            "label: use protocol as_is for unlabelled data"
        )
    anomalous = anomalous_samples(manifest)
    if known := anomalous & set(training_images(manifest)["sample_id"]):
        raise DataError(
            f"the source's own training split has {len(known)} anomalous samples, such as {min(known)}: it is a noisy "
            f"variant already; use protocol as_is instead of {noise.protocol}"
        )
    normal = set(manifest["sample_id"]) - anomalous
    train_normal, test_normal = _split_normal(manifest, normal, noise.test_share, seed)

    pool = stable_shuffle(anomalous, seed, "inject")
    reserve, count = (_share_of(len(train_normal), ratio) for ratio in (noise.max_ratio, noise.ratio))
    if reserve and reserve >= len(pool):
        largest = math.floor(max(0, len(pool) - 1) / len(train_normal) * 1000) / 1000
        raise DataError(
            f"max_ratio {noise.max_ratio} of {len(train_normal)} training samples needs {reserve} anomalous samples "
            f"and one more to test on, but there are {len(pool)}: the largest possible ratio is {largest}"
        )
    injected = set(pool[:count])
    removed = set(stable_shuffle(train_normal, seed, "replace")[:count]) if noise.protocol == "replace" else set()

    train = (train_normal - removed) | injected
    test = test_normal | set(pool[reserve:])
    variant = manifest[manifest["sample_id"].isin(train | test)].copy()
    variant["split"] = variant["sample_id"].isin(train).map({True: "train", False: "test"})
    return _nonempty(variant)


def _share_of(samples: int, ratio: float) -> int:
    """Return ⌊ratio · samples⌋."""
    # 1e-9: floating point may leave the product just below a whole number
    return math.floor(ratio * samples + 1e-9)


def _split_normal(manifest: pd.DataFrame, normal: set[str], test_share: float, seed: int) -> tuple[set[str], set[str]]:
    """Return the normal samples to train on and to test on.

    The source's own split counts. From the samples that the source does not split, `test_share` is held out for
    testing.
    """
    own = {split: set(manifest["sample_id"][manifest["split"] == split]) for split in ("train", "test")}
    order = stable_shuffle(normal - own["train"] - own["test"], seed, "hold out")
    train = (own["train"] - own["test"]) & normal | set(order[round(test_share * len(order)) :])
    if not train:
        raise DataError(f"no normal training sample among {len(normal)} normal ones: check the split of the source")
    return train, normal - train


def _nonempty(variant: pd.DataFrame) -> pd.DataFrame:
    if training_images(variant).empty:
        raise DataError(f"none of the {len(variant)} images is for training: check the split of the source")
    return variant
