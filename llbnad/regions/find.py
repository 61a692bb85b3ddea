"""Connected regions of an anomaly map in the pixels of the original image.

The patch map is enlarged to the image. A region is a set of 8-connected pixels above a level, with at least a minimum
area. Coordinates start at the upper left corner of the image as it is seen: pixel (0, 0) covers x and y from 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EIGHT_CONNECTED = np.ones((3, 3), bool)
CELL = 4  # pixels that a patch is wide in the maps of `region_level`


@dataclass(frozen=True, eq=False)
class Region:
    """One region of an image. All lengths are in pixels of the original image."""

    area: int  # pixels
    box: tuple[int, int, int, int]  # x, y, width, height
    centre: tuple[float, float]  # x, y: the mean over its pixels
    peak: float  # largest value of the map inside, in the unit of the score
    runs: np.ndarray  # (R, 2) int64: start and length of each run of its pixels, numbered column by column

    def numbers(self) -> dict[str, Any]:
        """Return area, box, centre and peak as JSON values."""
        return {"area": self.area, "box": list(self.box), "centre": list(self.centre), "peak": self.peak}


def enlarge(patch_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a patch map (h, w) in the pixels of its image: (height, width) float32, bilinear.

    This is the only place that knows how a patch map lies on its image: it covers the whole image, side by side.

    Args:
        patch_map: (h, w), any float type.
        size: (width, height) of the image.
    """
    from PIL import Image

    return np.asarray(Image.fromarray(patch_map.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def find_regions(patch_map: np.ndarray, size: tuple[int, int], level: float, min_area: float) -> list[Region]:
    """Return the regions of a patch map above `level`, highest peak first.

    Memory: about 20 bytes per pixel of the image while it runs; nothing if no value is above the level.

    Args:
        patch_map: (h, w), any float type.
        size: (width, height) of the image.
        level: pixels above it belong to regions.
        min_area: fewest pixels of a region.
    """
    from scipy import ndimage

    if patch_map.max() <= level:  # bilinear values never exceed those that they lie between
        return []
    values = enlarge(patch_map, size)
    labels, count = ndimage.label(values > level, EIGHT_CONNECTED)
    boxes, areas = ndimage.find_objects(labels), np.bincount(labels.ravel(), minlength=count + 1)[1:]
    found = [
        _region(labels[boxes[number]] == number + 1, values[boxes[number]], boxes[number], size[1])
        for number in np.flatnonzero(areas >= min_area)
    ]
    return sorted(found, key=lambda region: (-region.peak, -region.area, region.box))


def _region(inside: np.ndarray, values: np.ndarray, box: tuple[slice, slice], height: int) -> Region:
    """Return the region of the pixels `inside` (h, w) its box, whose values are `values` (h, w)."""
    top, left = box[0].start, box[1].start
    area = int(inside.sum())
    down, across = (inside.sum(axis) @ (np.arange(inside.shape[1 - axis]) + 0.5) / area for axis in (1, 0))
    centre = (round(left + float(across), 2), round(top + float(down), 2))
    # an empty row above and below parts the runs of two columns
    steps = np.diff(np.pad(inside, ((1, 1), (0, 0))).T.astype(np.int8), axis=1)
    column, row = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    runs = np.stack([(left + column) * height + top + row, ends - row], axis=1).astype(np.int64)
    peak = float(values[inside].max())
    return Region(area, (left, top, inside.shape[1], inside.shape[0]), centre, peak, runs)


def region_mask(regions: Sequence[Region], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels of regions as booleans (height, width). `size` is (width, height) of their image."""
    width, height = size
    columns = np.zeros(width * height, bool)
    for start, length in (run for region in regions for run in region.runs):
        columns[start : start + length] = True
    return columns.reshape(width, height).T


def region_level(patch_map: np.ndarray, share: float) -> float:
    """Return the level below which a patch map has a region: there is one above t if, and only if, t < level.

    The map is enlarged to `CELL` pixels per patch. If a region above t is large enough, so is the one that holds it
    above a lower t; bisection finds the exact level.

    Args:
        patch_map: (h, w), any float type.
        share: smallest area of a region, as a share of the image in [0, 1).
    """
    from scipy import ndimage

    height, width = patch_map.shape
    values = enlarge(patch_map, (CELL * width, CELL * height))
    fewest = max(1, round(share * values.size))
    ordered = np.sort(values, axis=None)[::-1]
    low, high = fewest - 1, values.size - 1  # places in `ordered`: above all of these pixels one region is large enough
    while low < high:
        middle = (low + high) // 2
        labels, _ = ndimage.label(values >= ordered[middle], EIGHT_CONNECTED)
        if np.bincount(labels.ravel())[1:].max() >= fewest:
            high = middle
        else:
            low = middle + 1
    return float(ordered[low])
