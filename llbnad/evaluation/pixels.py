"""Patch maps beside masks: pixel maps of an image's canvas, and rates of regions in its own pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llbnad.data.canvas import Frame
from llbnad.data.manifest import NORMAL
from llbnad.data.masks import marked
from llbnad.evaluation.region_rates import RegionRates
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

SMOOTHING = 4 / 392  # σ of the Gaussian, as a share of the pixel map's side


def map_and_mask(
    patch_map: np.ndarray, row: Mapping[Any, Any], image_root: Path, frame: Frame, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image's pixel map and its mask over the canvas, both (H, W). Without a mask file the mask is empty.

    What the mask marks outside of the region is left out.
    """
    import torch

    found = pixel_maps(torch.from_numpy(patch_map[None]), frame.canvas, side)[0].numpy()
    left, top, right, bottom = frame.box
    mask = frame.on_canvas(marked(row, image_root, (right - left, bottom - top)))
    return found, mask if frame.region is None else mask & frame.pixels()


def pixel_maps(maps: "torch.Tensor", size: tuple[int, int], side: int) -> "torch.Tensor":
    """Resize and smooth patch maps: (B, h, w) -> (B, H, W).

    Args:
        maps: (B, h, w).
        size: width and height of the result.
        side: pixels of a tile's side, which decide the smoothing.
    """
    from torch.nn import functional
    from torchvision.transforms.v2.functional import gaussian_blur

    resized = functional.interpolate(maps[:, None], size=size[::-1], mode="bilinear", align_corners=False)
    sigma = SMOOTHING * side
    kernel = 2 * round(4 * sigma) + 1
    # one direction after the other, because both at once take several times as long
    along_rows = gaussian_blur(resized, [kernel, 1], [sigma, sigma])
    return gaussian_blur(along_rows, [1, kernel], [sigma, sigma])[:, 0]


def region_rates(
    threshold: PixelThreshold,
    maps: Mapping[str, np.ndarray],
    rows: Mapping[str, Mapping[Any, Any]],
    image_root: Path,
    description: str,
) -> dict[str, float | None]:
    """Return the rates of `REGION_METRICS`, in pixels of the original images.

    A defective image without a mask, or with an empty mask, says nothing about regions.

    Args:
        threshold: where regions begin.
        maps: patch maps (h, w) over the whole image, by image id.
        rows: rows of the manifest by image id.
        image_root: folder that mask paths are relative to.
        description: what is measured, for the progress line.
    """
    rates = RegionRates()
    for image_id, row in track(rows.items(), f"regions of {description}", len(rows)):
        size = (int(row["width"]), int(row["height"]))
        regions = threshold.regions(maps[image_id], size)
        if row["anomaly_class"] == NORMAL:
            rates.add_normal(regions)
        elif not pd.isna(row["mask_path"]):
            rates.add_defects(regions, marked(row, image_root, size))
    return rates.result()
