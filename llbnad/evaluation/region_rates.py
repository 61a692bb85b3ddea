"""How well regions find defects: the share of defects that a region touches, and false regions on normal images.

A defect is an 8-connected part of a mask, in pixels of the original image. It is touched if any of its pixels lies in
a region, so the number says whether an inspector is shown the place, not how exactly. Regions beside the defects of a
defective image count nowhere, because masks are drawn with more or less care around a defect.
"""

from collections.abc import Sequence

import numpy as np

from llbnad.regions.find import EIGHT_CONNECTED, Region, region_mask

REGION_METRICS = ("region_recall", "false_regions_per_normal", "normal_with_region")


class RegionRates:
    """Counts over the images of a test set. An image at a time is enough."""

    def __init__(self) -> None:
        self._defects = self._touched = self._normal = self._false = self._with_region = 0

    def add_normal(self, regions: Sequence[Region]) -> None:
        """Add the regions of a normal image."""
        self._normal += 1
        self._false += len(regions)
        self._with_region += bool(regions)

    def add_defects(self, regions: Sequence[Region], mask: np.ndarray) -> None:
        """Add the regions of a defective image and its mask (height, width) bool, both in pixels of the image."""
        from scipy import ndimage

        labels, count = ndimage.label(mask, EIGHT_CONNECTED)
        self._defects += count
        if regions:
            height, width = mask.shape
            touched = np.unique(labels[region_mask(regions, (width, height))])
            self._touched += int((touched > 0).sum())

    def result(self) -> dict[str, float | None]:
        """Return the share of defects touched, regions per normal image, and the share of these with any region.

        A value is None if there is no image of its kind.
        """
        values = (
            self._touched / self._defects if self._defects else None,
            self._false / self._normal if self._normal else None,
            self._with_region / self._normal if self._normal else None,
        )
        return dict(zip(REGION_METRICS, values, strict=True))
