"""Drift: whether a batch of new images differs from the images that the detector was trained on.

Each statistic has a p-value, which says whether chance explains the difference, and an effect size, which says whether
it matters. A statistic has drifted if the p-value is low and the effect is large. In a batch of thousands, a p-value
alone would report any trifle.

| statistic   | of an image                                | p-value                       | effect                  |
|-------------|--------------------------------------------|-------------------------------|-------------------------|
| `features`  | its mean patch features, a unit vector     | energy distance, permutations | energy coefficient      |
| `brightness`| mean grey value in [0, 1]                  | Kolmogorov-Smirnov            | Wasserstein distance    |
| `sharpness` | log10 of the variance of the Laplacian     | Kolmogorov-Smirnov            | Wasserstein distance    |
| `size`      | log10 of its number of pixels              | Kolmogorov-Smirnov            | Wasserstein distance    |
| `rejection` | whether it was called a defect             | Fisher's exact test           | difference of the rates |

The Wasserstein distance is in standard deviations of the reference. The energy coefficient lies in [0, 1] and is 0 for
equal distributions (Székely & Rizzo, Journal of Statistical Planning and Inference 143, 2013); its mean over random
splits of the pooled images is subtracted. A report's p-values are compared with LEVEL divided by their number
(Bonferroni). A batch from the same distribution therefore gives a false alarm in at most LEVEL of all cases.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.config import Window
from llbnad.data.images import load_rgb
from llbnad.data.manifest import windows_of
from llbnad.errors import DataError, IdentityError
from llbnad.features.image_vectors import image_vectors
from llbnad.features.source import FeatureSource
from llbnad.utils.hashing import stable_number, stable_shuffle
from llbnad.utils.progress import track

LEVEL = 0.01  # rate of false alarms per report
PERMUTATIONS = 1999
MOST_IMAGES = 500  # per side; larger sets are sampled, because the number of distances grows with the square
LONGEST_SIDE = 1024  # pixels; larger images are reduced before brightness and sharpness are measured
MIN_EFFECT = {"features": 0.02, "brightness": 0.5, "sharpness": 0.5, "size": 0.5, "rejection": 0.05}
SENTENCES = {
    "features": "the images look different to the encoder",
    "brightness": "brightness has changed",
    "sharpness": "sharpness has changed",
    "size": "image sizes have changed",
    "rejection": "the share of images called defects has changed",
}


@dataclass(frozen=True)
class DriftStatistic:
    """One property of a batch, compared with the reference."""

    name: str
    reference: float  # mean over the reference; for `features`, the mean coefficient that chance alone gives
    batch: float  # mean over the batch; for `features`, its coefficient
    effect: float
    p_value: float
    drifted: bool


@dataclass(frozen=True)
class DriftReport:
    """The statistics of a batch, and whether it has drifted."""

    n_reference: int
    n_batch: int
    statistics: tuple[DriftStatistic, ...]

    @property
    def drifted(self) -> bool:
        """Whether any statistic drifted."""
        return any(one.drifted for one in self.statistics)

    @property
    def reason(self) -> str:
        """The result in words."""
        found = [
            f"{SENTENCES[one.name]} ({one.reference:.3g} → {one.batch:.3g}, p = {one.p_value:.2g})"
            for one in self.statistics
            if one.drifted
        ]
        return "; ".join(found) if found else f"no drift: {self.n_batch} images are like the {self.n_reference} known"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "statistics": [asdict(one) for one in self.statistics],
                "drifted": self.drifted, "reason": self.reason}  # fmt: skip

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DriftReport":
        """Rebuild a report from the result of `to_dict`."""
        statistics = tuple(DriftStatistic(**one) for one in content["statistics"])
        return cls(content["n_reference"], content["n_batch"], statistics)


@dataclass(frozen=True)
class Described:
    """The properties of a set of images that `compare` needs, in the order of the images."""

    vectors: np.ndarray  # (N, D) unit vectors
    numbers: pd.DataFrame  # (N, 3): brightness, sharpness, size
    rejected: np.ndarray | None = None  # (N,) bool: called a defect


def drift_report(
    reference_ids: Sequence[str],
    batch_ids: Sequence[str],
    features: FeatureSource,
    manifest: pd.DataFrame,
    image_root: Path,
    seed: int,
    rejected: Collection[str] | None = None,
) -> DriftReport:
    """Compare a batch of images with the reference. A side of more than MOST_IMAGES images is sampled reproducibly.

    Args:
        reference_ids: ids of the images that the detector was trained on.
        batch_ids: ids of the new images.
        features: features of both sides.
        manifest: manifest with both sides.
        image_root: folder that the manifest's paths are relative to.
        seed: seed of sampling and permutations.
        rejected: ids of the images on either side that were called defects; None leaves the statistic `rejection` out.

    Raises:
        DataError: one side has fewer than 2 images.
        IdentityError: an image is not in the manifest.
    """
    sides = {"reference": reference_ids, "batch": batch_ids}
    for name, ids in sides.items():
        if len(set(ids)) < 2:
            raise DataError(f"drift needs at least 2 images per side, but the {name} has {len(set(ids))}")
    described = {
        name: describe(
            sorted(stable_shuffle(ids, seed, "drift")[:MOST_IMAGES]), features, manifest, image_root, name, rejected
        )
        for name, ids in sides.items()
    }
    return compare(described["reference"], described["batch"], seed)


def describe(
    image_ids: Sequence[str],
    features: FeatureSource,
    manifest: pd.DataFrame,
    image_root: Path,
    name: str = "images",
    rejected: Collection[str] | None = None,
) -> Described:
    """Measure the properties of images that `compare` needs.

    Args:
        image_ids: ids of the images.
        features: features of the images.
        manifest: manifest with the images.
        image_root: folder that the manifest's paths are relative to.
        name: name of the set, for progress and error messages.
        rejected: ids of the images that were called defects; None if that is unknown.

    Raises:
        IdentityError: an image is not in the manifest.
    """
    paths = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    unknown = [image_id for image_id in image_ids if image_id not in paths]
    if unknown:
        raise IdentityError(f"{len(unknown)} images of the {name} are not in the manifest, first {unknown[0]}")
    vectors = image_vectors(features, image_ids, grid=1, description=f"drift: {name}")
    windows = windows_of(manifest)
    numbers = [
        image_numbers(image_root / paths[image_id], windows.get(image_id))
        for image_id in track(image_ids, f"drift: {name}")
    ]
    known = None if rejected is None else np.isin(list(image_ids), list(rejected))
    return Described(vectors, pd.DataFrame(numbers), known)


def image_numbers(path: Path, window: Window | None = None) -> dict[str, float]:
    """Return brightness, sharpness and size of an image file, in the units of the table above.

    Args:
        path: the image file.
        window: values shown as black and white, for an image above 8 bits.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is unreadable.
    """
    from scipy.ndimage import laplace

    image = load_rgb(path, window).convert("L")
    size = float(np.log10(image.width * image.height))
    image = image.reduce(-(-max(image.size) // LONGEST_SIDE))
    grey = np.asarray(image, np.float64) / 255
    # 1e-8: a uniform image has no edge, and 0 has no logarithm
    return {"brightness": float(grey.mean()), "sharpness": float(np.log10(laplace(grey).var() + 1e-8)), "size": size}


def compare(reference: Described, batch: Described, seed: int) -> DriftReport:
    """Compare two described sets and return the report. The order of images matters only for the permutations."""
    findings = [("features", *_energy(reference.vectors, batch.vectors, seed))]
    for name in reference.numbers.columns:
        findings.append((name, *_distribution(reference.numbers[name].to_numpy(), batch.numbers[name].to_numpy())))
    if reference.rejected is not None and batch.rejected is not None:
        findings.append(("rejection", *_rates(reference.rejected, batch.rejected)))
    level = LEVEL / len(findings)
    statistics = tuple(
        DriftStatistic(name, before, after, effect, p, bool(p <= level and effect >= MIN_EFFECT[name]))
        for name, before, after, effect, p in findings
    )
    return DriftReport(len(reference.vectors), len(batch.vectors), statistics)


def _energy(reference: np.ndarray, batch: np.ndarray, seed: int) -> tuple[float, float, float, float]:
    """Compare two sets of vectors by their energy coefficient.

    Returns:
        the mean coefficient of random splits, the batch's coefficient, its excess over this mean, and the p-value: the
        share of splits that reach the batch's coefficient.
    """
    from scipy.spatial.distance import cdist

    pooled = np.concatenate([reference, batch]).astype(np.float64)
    distances = cdist(pooled, pooled)  # (n, n)
    # energy distance = -wᵀ D w with w = 1/n_reference on one side and -1/n_batch on the other
    weights = np.repeat([1 / len(reference), -1 / len(batch)], [len(reference), len(batch)])
    generator = np.random.default_rng(stable_number("permutations", seed, "drift"))
    splits = np.vstack([weights, generator.permuted(np.tile(weights, (PERMUTATIONS, 1)), axis=1)])  # (P+1, n)
    energies = -np.einsum("pn,pn->p", splits @ distances, splits)
    across = distances[: len(reference), len(reference) :].mean()
    coefficients = energies / max(2 * across, 1e-12)
    observed, chance = coefficients[0], coefficients[1:]
    p_value = (1 + np.sum(chance >= observed - 1e-12)) / (PERMUTATIONS + 1)
    return float(chance.mean()), float(observed), float(observed - chance.mean()), float(p_value)


def _distribution(reference: np.ndarray, batch: np.ndarray) -> tuple[float, float, float, float]:
    from scipy import stats

    # a reference without spread, such as images of equal size, is measured in units of 1 % of its mean
    spread = max(float(reference.std()), 0.01 * abs(float(reference.mean())), 1e-6)
    effect = stats.wasserstein_distance(reference, batch) / spread
    return float(reference.mean()), float(batch.mean()), float(effect), float(stats.ks_2samp(reference, batch).pvalue)


def _rates(reference: np.ndarray, batch: np.ndarray) -> tuple[float, float, float, float]:
    from scipy import stats

    table = [[int(side.sum()), int((~side).sum())] for side in (reference, batch)]
    before, after = float(reference.mean()), float(batch.mean())
    return before, after, abs(after - before), float(stats.fisher_exact(table).pvalue)
