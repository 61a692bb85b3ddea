"""Sensitivity of a trained model, as evaluation writes it: table, curves, a sheet of drawings, numbers and one line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llbnad.config import SensitivityConfig
from llbnad.errors import DataError
from llbnad.features.source import FeatureSource
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold
from llbnad.sensitivity.measure import drawings, score_drawings, usual_sizes
from llbnad.sensitivity.pictures import defect_sheet, sensitivity_curves
from llbnad.sensitivity.rates import SHARES, detection_rates, smallest_found, summary_line
from llbnad.sensitivity.unseen import unseen_images
from llbnad.utils.files import write_csv

CURVES, DRAWN, TABLE = "sensitivity.png", "synthetic_defects.png", "sensitivity.csv"


@dataclass(frozen=True)
class Sensitivity:
    """Synthetic defects that a detector finds."""

    rates: pd.DataFrame  # see `detection_rates`; empty if nothing could be measured
    metrics: Mapping[str, float | None]  # `sensitivity` and `smallest_<kind>_px`
    line: str  # the summary, or why nothing could be measured
    files: tuple[Path, ...] = ()

    @property
    def content(self) -> dict[str, float | str | None]:
        """The metrics and the summary, for metrics.json."""
        return {**self.metrics, "sensitivity_line": self.line}


def measure(
    predictor: Predictor,
    images: Mapping[str, Path],
    sides: Sequence[int],
    settings: SensitivityConfig,
    threshold: Threshold,
    out: Path,
    whose: str,
    seed: int = 0,
) -> Sensitivity:
    """Draw defects on images, score them, and write sensitivity.csv, sensitivity.png and synthetic_defects.png.

    Args:
        predictor: the model.
        images: files of normal images that it has not learnt, by id.
        sides: the shorter sides of the images, in pixels.
        settings: sizes and contrasts.
        threshold: decides what is found.
        out: folder to write to.
        whose: which images these are, in words.
        seed: gives other places.
    """
    sizes = usual_sizes(sides) if settings.sizes == "auto" else settings.sizes
    wanted = drawings(sizes, settings.contrasts)
    scores = score_drawings(predictor, images, wanted, seed, predictor.model.region)
    rates = detection_rates(scores, threshold.value)
    line = f"{summary_line(rates, settings.contrasts[0], threshold.target_fpr, len(images))} ({whose})"
    write_csv(rates, out / TABLE)
    sensitivity_curves(rates, out / CURVES, f"{predictor.model.config.name}: {whose}")
    first = min(images)
    shown = drawings(sizes, settings.contrasts[:1])
    defect_sheet(predictor, first, images[first], shown, threshold, out / DRAWN, seed)
    return Sensitivity(rates, numbers(rates, settings.contrasts[0]), line, (out / TABLE, out / CURVES, out / DRAWN))


def numbers(rates: pd.DataFrame, contrast: float) -> dict[str, float | None]:
    """Return the metrics of a table of rates at one contrast.

    `sensitivity` is the mean rate over kinds and sizes, in [0, 1]. `smallest_<kind>_px` is the smallest size found in
    half of the images; None if no size is.
    """
    chosen = rates[rates["contrast"] == contrast]
    smallest = {
        f"smallest_{kind}_px": smallest_found(rates, kind, contrast, SHARES[0]) for kind in chosen["kind"].unique()
    }
    return {"sensitivity": float(chosen["rate"].mean()) if len(chosen) else None, **smallest}


def sensitivity_of(
    model: Model,
    noisy: pd.DataFrame,
    kept: Sequence[str],
    features: FeatureSource,
    image_root: Path,
    settings: SensitivityConfig,
    seed: int,
    device: str,
    out: Path,
) -> Sensitivity | None:
    """Measure a scenario's final detector on images that are not learnt (`llbnad.sensitivity.unseen`).

    Args:
        model: the final detector.
        noisy: manifest of the scenario.
        kept: ids of the images that it learnt.
        features: features of these images, with the patches to learn from.
        image_root: folder that the manifest's paths are relative to.
        settings: number of images, sizes and contrasts.
        seed: seed of the scenario.
        device: torch's name of the device.
        out: folder of the pictures. Files of an earlier measurement are removed.

    Returns:
        the result, or None if `settings.images` is 0.
    """
    for name in (TABLE, CURVES, DRAWN):
        (out / name).unlink(missing_ok=True)
    if not settings.images:
        return None
    if model.threshold is None:
        return _nothing("the model has no threshold, so nothing is found or missed")
    try:
        unseen = unseen_images(model, noisy, kept, features, settings.images, seed)
    except DataError as error:
        return _nothing(str(error))
    rows = unseen.images
    images = {image_id: image_root / path for image_id, path in zip(rows["image_id"], rows["path"], strict=True)}
    sides = rows[["width", "height"]].min(axis=1).astype(int).tolist()
    predictor = Predictor(unseen.model, device)
    return measure(predictor, images, sides, settings, model.threshold, out, unseen.whose, seed)


def _nothing(why: str) -> Sensitivity:
    return Sensitivity(pd.DataFrame(), {"sensitivity": None}, f"sensitivity is not measured: {why}")
