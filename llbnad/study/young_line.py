"""One cell of the young-line study: what a detector from N images decides about new images, at its own threshold.

N training images are drawn, ⌊αN + ½⌋ of them anomalous. Both stages run on them as in a run. Beside the result stands
the oracle set: the same detector, trained and calibrated on the truly normal ones of the same images. Within a draw,
a smaller set is part of a larger one, and the new images are the same for every N and α. With the comparator `none`
among the settings, the same detector without stage 1 stands beside both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from llbnad.config import METHOD, Config, Dataset, EncoderConfig
from llbnad.data.manifest import WINDOW, contamination, is_anomalous, windows_of
from llbnad.errors import DataError
from llbnad.evaluation.metrics import ranking
from llbnad.features.pooled import PooledFeatures
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model, derived_seed, train
from llbnad.model.threshold import Threshold
from llbnad.purification.aggregate import agreement
from llbnad.scenario import AnyDetector, AnyEncoder, ScenarioSettings, make_settings
from llbnad.two_stage import select_images, train_final
from llbnad.utils.hashing import stable_shuffle


class YoungLine(Config):
    """The settings of a study, e.g. benchmarks/young_line.yaml."""

    datasets: dict[str, Dataset]
    encoder: AnyEncoder
    pool: int = Field(1, ge=1)
    detectors: dict[str, AnyDetector]
    sizes: tuple[int, ...]  # N
    ratios: tuple[float, ...]  # α
    seeds: tuple[int, ...]  # one draw each
    new_images: int = Field(200, ge=1)  # largest number of new images of each kind
    settings: dict[str, Any] = Field(default_factory=dict)  # further keys of `ScenarioSettings`; comparators: only none

    def source(self, name: str, ratio: float) -> Dataset:
        """Return the data set `name`, which is the same for every ratio."""
        return self.datasets[name]

    def scenario(self, detector: str, seed: int) -> ScenarioSettings:
        """Return the settings of one run.

        Raises:
            ConfigError: a key of `settings` is unknown or impossible.
        """
        own = {"seed": seed, "encoder": self.encoder, "detector": self.detectors[detector], "comparators": ()}
        return make_settings({**own, **self.settings}, "settings")

    def cells(self) -> list["YoungCell"]:
        """Return all cells, data set by data set, so that a process reads the features of each once."""
        return [
            YoungCell(dataset, ratio, detector, seed)
            for dataset in self.datasets
            for seed in self.seeds
            for ratio in self.ratios
            for detector in self.detectors
        ]


@dataclass(frozen=True)
class YoungCell:
    """One draw of images at one contamination, and one detector. A cell holds all sizes."""

    dataset: str
    ratio: float  # α
    detector: str
    seed: int

    @property
    def name(self) -> str:
        """File name of the cell's results, without suffix."""
        return f"{self.dataset}_{self.detector}_{self.ratio:g}_{self.seed}"


@dataclass(frozen=True)
class Draw:
    """Images of one draw."""

    train: pd.DataFrame  # manifest rows
    new: pd.DataFrame  # manifest rows of images that are not drawn for any size


def draw_images(manifest: pd.DataFrame, grid: YoungLine, size: int, ratio: float, seed: int) -> Draw:
    """Draw `size` training images of which the share `ratio` is anomalous, and the new images to decide on.

    Args:
        manifest: manifest of the whole labelled data set.
        grid: the settings; its largest size and ratio decide which images are kept for the new ones.
        size: N.
        ratio: α.
        seed: number of the draw.

    Raises:
        DataError: there are too few images of a kind.
    """
    anomalous = is_anomalous(manifest).astype(bool)
    counts = {False: size - _count(size, ratio), True: _count(size, ratio)}
    largest = {False: max(grid.sizes), True: _count(max(grid.sizes), max(grid.ratios))}
    train, new = [], []
    for kind, name in ((False, "normal"), (True, "anomalous")):
        order = stable_shuffle(manifest["image_id"][anomalous == kind], seed, f"young line {name}")
        if len(order) <= largest[kind]:
            raise DataError(
                f"{len(order)} {name} images; expected more than {largest[kind]}, which the largest training set "
                "needs: make sizes or ratios smaller"
            )
        train += order[: counts[kind]]
        new += order[largest[kind] :][: grid.new_images]
    rows = manifest.set_index("image_id", drop=False)
    chosen = rows.loc[sorted(train)].assign(split="train").reset_index(drop=True)
    others = rows.loc[sorted(new)].reset_index(drop=True)
    # further views of a training sample are not new
    return Draw(chosen, others[~others["sample_id"].isin(chosen["sample_id"])].reset_index(drop=True))


def run_young_cell(
    cell: YoungCell, grid: YoungLine, manifest: pd.DataFrame, image_root: Path, cache: Path
) -> pd.DataFrame:
    """Compute one cell and return one row per size.

    Args:
        cell: a cell of the grid.
        grid: the settings.
        manifest: manifest of the data set.
        image_root: folder that the manifest's paths are relative to.
        cache: folder of the feature cache.
    """
    windows, paths = windows_of(manifest), zip(manifest["image_id"], manifest["path"], strict=True)
    images = tuple((image_id, path, *windows.get(image_id, (None, None))) for image_id, path in paths)
    features = _features(cache, grid.encoder, images, image_root, grid.pool)
    return pd.DataFrame([_row(cell, grid, manifest, features, size) for size in grid.sizes])


@lru_cache(maxsize=1)  # a process takes the cells of one data set one after the other
def _features(
    cache: Path, encoder: EncoderConfig, images: tuple[tuple[Any, ...], ...], image_root: Path, pool: int
) -> FeatureSource:
    manifest = pd.DataFrame(images, columns=["image_id", "path", *WINDOW])
    return PooledFeatures(FeatureStore(cache, encoder, manifest, image_root), pool)


def _row(
    cell: YoungCell, grid: YoungLine, manifest: pd.DataFrame, features: FeatureSource, size: int
) -> dict[str, object]:
    settings = grid.scenario(cell.detector, cell.seed)
    images = draw_images(manifest, grid, size, cell.ratio, cell.seed)
    selection = select_images(images.train, features, settings)
    _, models = train_final(images.train, selection, features, settings)
    kept = selection.purified.kept
    own = _decided(models[METHOD], models[METHOD].threshold, images.new, features)
    normal = images.train[~is_anomalous(images.train).astype(bool)]
    best = _decided(*_oracle(normal, features, settings), images.new, features)
    others = {}
    if "none" in models:
        ids = images.new["image_id"].tolist()
        others["none_image_auroc"] = _auroc(models["none"].score(features, ids, "new images").values, images.new)
    return {
        "dataset": cell.dataset,
        "detector": cell.detector,
        "n": size,
        "alpha": cell.ratio,
        "seed": cell.seed,
        "kept": len(kept) / size,
        "contamination_after": contamination(images.train[images.train["image_id"].isin(kept)]),
        "agreement": agreement(selection.consensus.table),
        **own,
        **{f"oracle_{name}": best[name] for name in ("image_auroc", "decided_by", "recall", "fpr", "unsure")},
        **others,
        "n_new": len(images.new),
    }


def _oracle(normal: pd.DataFrame, features: FeatureSource, settings: ScenarioSettings) -> tuple[Model, Threshold]:
    encoder, detector, seed = settings.encoder, settings.detector, settings.seed
    model = train(encoder, detector, features, sorted(normal["image_id"]), derived_seed(seed, "detector"))
    threshold, _ = calibrate(normal, features, encoder, detector, settings.calibration, seed)
    if threshold is None:
        raise DataError("calibration.folds is 0; expected at least 2, because the study measures thresholds")
    return model, threshold


def _decided(
    model: Model, threshold: Threshold | None, new: pd.DataFrame, features: FeatureSource
) -> Mapping[str, object]:
    """Return what the threshold promised and what it decided about the new images."""
    assert threshold is not None  # `_oracle` refuses settings without one
    scores = model.score(features, new["image_id"].tolist(), "new images").values
    anomalous = is_anomalous(new).astype(bool).to_numpy()
    above, unsure = scores > threshold.value, threshold.is_unsure(scores)
    return {
        "image_auroc": _auroc(scores, new),
        "decided_by": threshold.decided_by,
        "promised_fpr": threshold.promised_fpr,
        "promised_low": threshold.fpr_low,
        "promised_high": threshold.fpr_high,
        "recall": float(above[anomalous].mean()),
        "fpr": float(above[~anomalous].mean()),
        "unsure": float(unsure.mean()),
        "surely_found": float((scores > threshold.unsure_high)[anomalous].mean()),
        "unsure_anomalous": float(unsure[anomalous].mean()),
        "unsure_normal": float(unsure[~anomalous].mean()),
    }


def _auroc(scores: np.ndarray, new: pd.DataFrame) -> float:
    anomalous = is_anomalous(new).astype(bool).to_numpy()
    found = ranking(scores[~anomalous], scores[anomalous])
    assert found is not None  # `draw_images` leaves images of both kinds
    return found.auroc


def _count(size: int, ratio: float) -> int:
    return int(np.floor(ratio * size + 0.5 + 1e-9))  # 1e-9: 0.1 · 5 must not be below a half
