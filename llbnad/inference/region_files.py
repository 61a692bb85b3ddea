"""Regions as files: columns of predictions.csv, one line each in regions.jsonl, and annotations in COCO's form.

Labels and regions are two decisions, and they may disagree. An image called a defect may have no region, because its
score is raised in many places and none of them stands out; an image called normal may have one. Both are kept as they
are and named in the column `disagreement`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.errors import DataError
from llbnad.inference.exported import Exported
from llbnad.inference.prediction import Prediction, printable
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import DEFECT_LABEL, NORMAL_LABEL
from llbnad.utils.files import replacing, write_json

NO_REGION, ONLY_REGION = "defect without a region", "region in a normal image"
MISSING = (
    "the model has no pixel threshold, because an earlier release trained it, or calibration.folds was 0: "
    "train it again with calibration.folds of at least 2 to get regions"
)
WHOLE = ("width", "height", "regions", "largest_area")  # columns of whole numbers, empty where there is none
CATEGORY = {"id": 1, "name": "anomaly", "supercategory": ""}


def pixel_threshold_of(
    model: "Model | Exported", target_fpr: float | None, wanted: bool = False
) -> PixelThreshold | None:
    """Return the model's pixel threshold, or its pixel threshold for another rate; None if it has none.

    Args:
        model: the trained model.
        target_fpr: share of normal images with a region, in (0, 1); None keeps the model's own.
        wanted: somebody asked for regions.

    Raises:
        ConfigError: the rate is not in (0, 1).
        DataError: regions are wanted, but the model has no pixel threshold.
    """
    if model.pixel_threshold is None:
        if wanted:
            raise DataError(MISSING)
        return None
    return model.pixel_threshold if target_fpr is None else model.pixel_threshold.at(target_fpr)


def region_columns(one: Prediction) -> dict[str, Any]:
    """Return the columns of an image: its size, its number of regions, the largest of them, and `disagreement`."""
    width, height = one.size or (None, None)
    found: dict[str, Any] = {"width": width, "height": height, "regions": None, "largest_area": None}
    found |= {"largest_box": None, "highest_peak": None, "disagreement": disagreement(one)}
    if one.regions is not None:
        found["regions"] = len(one.regions)
    if one.regions:
        largest = max(one.regions, key=lambda region: region.area)
        box = " ".join(map(str, largest.box))
        found |= {"largest_area": largest.area, "largest_box": box, "highest_peak": one.regions[0].peak}
    return found


def disagreement(one: Prediction) -> str:
    """Return in which way label and regions of an image disagree; empty if they agree or one of them is missing."""
    if one.regions is None:
        return ""
    if one.label == DEFECT_LABEL and not one.regions:
        return NO_REGION
    return ONLY_REGION if one.label == NORMAL_LABEL and one.regions else ""


def write_regions(results: Mapping[Path, Prediction], path: Path) -> None:
    """Write one line per region, in the order of the images, highest peak first.

    A line holds path, width, height, score and label of the image; number of the region, from 1 on; area, area_share
    (of the image), box, centre and peak (`llbnad.regions.find`).
    """
    with replacing(path) as temporary, temporary.open("w") as lines:
        for image, one in results.items():
            if one.size is None:
                continue
            width, height = one.size
            for number, region in enumerate(one.regions or (), 1):
                about = {"path": printable(image), "width": width, "height": height}
                about |= {"score": one.score, "label": one.label or None, "number": number}
                share = region.area / (width * height)
                lines.write(json.dumps({**about, "area_share": share, **region.numbers()}, sort_keys=True) + "\n")


def write_coco(results: Mapping[Path, Prediction], path: Path) -> None:
    """Write images and regions as COCO's JSON. Images that could not be read are left out, as they have no size.

    `segmentation` is COCO's uncompressed run-length encoding, which is exact and knows holes. `score` is the peak.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, one in results.items():
        if one.size is None:
            continue
        width, height = one.size
        images.append({"id": len(images) + 1, "file_name": printable(name), "width": width, "height": height})
        for region in one.regions or ():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[-1]["id"],
                    "category_id": CATEGORY["id"],
                    "bbox": list(region.box),
                    "area": region.area,
                    "iscrowd": 0,
                    "score": region.peak,
                    "segmentation": {"size": [height, width], "counts": _counts(region.runs, width * height)},
                }
            )
    write_json({"images": images, "annotations": annotations, "categories": [CATEGORY]}, path)


def _counts(runs: np.ndarray, pixels: int) -> list[int]:
    """Return the lengths of background and region in turn, which COCO calls counts. Touching runs are joined."""
    edges = np.stack([runs[:, 0], runs.sum(axis=1)], axis=1).ravel()  # start and end of each run
    touching = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([touching, touching + 1]))
    counts: list[int] = np.diff(edges, prepend=0, append=pixels).tolist()
    return counts if counts[-1] else counts[:-1]


def region_lines(table: pd.DataFrame, pixels: PixelThreshold | None, min_area: int | None) -> list[str]:
    """Return the lines to print about the regions of a table of `llbnad.inference.write.predict`.

    Args:
        table: the table.
        pixels: threshold of regions; None: the model has none.
        min_area: fewest pixels that were asked for; None for the model's own.
    """
    if pixels is None:
        return [f"no regions: {MISSING}"]
    found = table["regions"].fillna(0)
    lines = [f"{int(found.sum())} regions in {int((found > 0).sum())} images; {pixels.describe()}"]
    for kind, count in table["disagreement"].value_counts().items():
        if kind:
            lines.append(f"label and regions disagree in {count} images ({kind}): see the column disagreement")
    if min_area is not None and (min_area < pixels.min_area * table["width"] * table["height"]).any():
        lines.append(
            f"note: --min-area {min_area} is below the {pixels.min_area:.3%} of an image that the threshold was "
            f"calibrated for: more than {pixels.levels.target_fpr:.2%} of normal images may show a region"
        )
    return lines
