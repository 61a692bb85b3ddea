"""Sensitivity and robustness of a model file on a folder of normal images, as `llbnad sensitivity` writes them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from llbnad.config import SensitivityConfig, parse
from llbnad.data.decode import page_of
from llbnad.data.images import load_rgb
from llbnad.errors import DataError
from llbnad.inference.predict import Predictor
from llbnad.model.threshold import Threshold
from llbnad.sensitivity.report import measure
from llbnad.sensitivity.robustness import robustness
from llbnad.utils.files import file_digest, write_csv
from llbnad.utils.hashing import stable_shuffle

UNTHRESHED = "the model has no threshold, so it finds and misses nothing: train it with calibration.folds of at least 2"


def write_sensitivity(
    predictor: Predictor,
    paths: Sequence[Path],
    threshold: Threshold | None,
    settings: SensitivityConfig,
    out: Path,
    seed: int = 0,
    harmless: bool = True,
) -> list[str]:
    """Measure a model, write the tables and pictures into `out`, and return the summary, line by line.

    Args:
        predictor: the model.
        paths: files of normal images that it has not learnt.
        threshold: the model's, or one for another rate of false positives.
        settings: number of images, sizes and contrasts.
        out: folder to write to.
        seed: chooses among the images, and the places of the defects.
        harmless: measure false positives after harmless changes as well, into robustness.csv.

    Raises:
        DataError: the model has no threshold, or an image cannot be read.
    """
    if threshold is None:
        raise DataError(UNTHRESHED)
    named = {_image_id(path): path for path in paths}
    chosen = sorted(stable_shuffle(named, seed, "sensitivity")[: settings.images])
    images = {image_id: named[image_id] for image_id in chosen}
    sides = [min(_size(path, predictor)) for path in images.values()]
    lines = [measure(predictor, images, sides, settings, threshold, out, f"{len(images)} images given", seed).line]
    (out / "robustness.csv").unlink(missing_ok=True)  # an earlier call may have left it
    if harmless:
        table = robustness(predictor, images, threshold)
        write_csv(table, out / "robustness.csv")
        lines += robustness_lines(table)
    return lines


def settings_of(images: int, sizes: str, contrasts: str) -> SensitivityConfig:
    """Return the settings that options of the command line give: lists are numbers with commas between them.

    Raises:
        ConfigError: a list is not one of numbers, or a number is out of its range.
    """
    content = {"images": images, "sizes": sizes if sizes == "auto" else _listed(sizes), "contrasts": _listed(contrasts)}
    found: SensitivityConfig = parse(SensitivityConfig, content, "llbnad sensitivity")
    return found


def _listed(text: str) -> Any:
    try:
        return [float(part) if "." in part else int(part) for part in text.split(",")]
    except ValueError:
        return text  # which the settings refuse, with their reason


def robustness_lines(table: pd.DataFrame) -> Iterator[str]:
    """Yield one line per change: the share of images called defects at each strength."""
    for change, rows in table.groupby("change", sort=False):
        both = zip(rows["strength"], rows["false_positives"], strict=True)
        shares = [f"{strength:g}: {share:.0%}" for strength, share in both]
        if change == "none":
            share, images = rows[["false_positives", "images"]].iloc[0]
            yield f"false positives: {share:.0%} of {images:g} images as they are"
        else:
            yield f"  after {change} {', '.join(shares)}"


def _image_id(path: Path) -> str:
    """Return what a manifest calls an image: the hash of its file; a single page adds its number."""
    file, page = page_of(path)
    return file_digest(file) + ("" if page is None else f"#{page}")


def _size(path: Path, predictor: Predictor) -> tuple[int, int]:
    try:
        with Image.open(path) as image:  # the header alone; an orientation of 90° leaves the shorter side
            return image.size
    except OSError:  # a page of a file, or a format of our own reader
        return load_rgb(path, predictor.model.window).size
