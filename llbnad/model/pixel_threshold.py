"""The threshold of regions, without any label: the level that the map of a normal image rarely exceeds.

The rate is the share of normal images with at least one region, each of them at least as large as a minimum area. It
is the rate that a factory pays for: a part is taken off the line once, whether one region was marked or three, and
however large the region is. A share of false pixels says neither. One large false region in a thousand images and one
false pixel in each of them have the same share of pixels, neighbouring pixels are not independent, and the share moves
with the camera's resolution.

Each kept image has one number, its region level: there is a region above t if, and only if, t is below that level
(`llbnad.regions.find.region_level`), on the map by a detector that did not learn the image. The levels are scores of
images, so the threshold, its promise and its bound follow as for the image score (`llbnad.model.threshold`): in the
mean over calibration sets, at most α of the normal images has a region, and the bound keeps defects that were kept from
raising the level. The rate is the image threshold's own, `calibration.target_fpr`. Regions and labels are two
decisions, each at this rate.

A region is at least one patch large unless `calibration.min_area` says otherwise. Below a patch, the shape on the
enlarged map is that of the interpolation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llbnad.model.threshold import Threshold
from llbnad.regions.find import Region, find_regions


@dataclass(frozen=True, eq=False)
class PixelThreshold:
    """The level above which pixels belong to regions."""

    levels: Threshold  # from the region levels of the kept images; nothing is unsure
    min_area: float  # smallest area of a region, as a share of the image, in (0, 1)

    @property
    def value(self) -> float:
        """Pixels above it belong to regions; in the unit of the score."""
        return self.levels.value

    def at(self, target_fpr: float) -> "PixelThreshold":
        """Return the threshold at which another share of the normal images has a region.

        Raises:
            ConfigError: the rate is not in (0, 1).
        """
        return PixelThreshold(self.levels.at(target_fpr), self.min_area)

    def pixels(self, size: tuple[int, int]) -> float:
        """Return the smallest area in pixels of an image of `size` (width, height)."""
        return self.min_area * size[0] * size[1]

    def regions(self, patch_map: np.ndarray, size: tuple[int, int], min_area: int | None = None) -> list[Region]:
        """Return the regions of a patch map (h, w), highest peak first.

        Args:
            patch_map: (h, w), any float type.
            size: (width, height) of the image.
            min_area: fewest pixels of a region; None: the area that the threshold was calibrated for.
        """
        return find_regions(patch_map, size, self.value, self.pixels(size) if min_area is None else min_area)

    def describe(self) -> str:
        """Describe the threshold in one line: level, rate, and smallest area."""
        return f"regions of at least {self.min_area:.3%} of an image, {self.levels.describe()}"

    def summary(self) -> dict[str, float | int | bool | str | dict[str, int] | None]:
        """Return everything but the levels of the images, as JSON values."""
        return {**self.levels.summary(), "min_area": self.min_area}

    @classmethod
    def restore(cls, summary: Mapping[str, Any], levels: np.ndarray) -> "PixelThreshold":
        """Rebuild a threshold from the result of `summary` and the region levels."""
        return cls(Threshold.restore(summary, levels), float(summary["min_area"]))
