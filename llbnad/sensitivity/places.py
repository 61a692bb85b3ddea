"""The places of synthetic defects inside a region of interest, where a model looks.

The region is drawn on a grid of at most `LONGEST` cells a side, so that an image of 16 megapixels costs no more than a
small one. The cell of a defect follows from random numbers alone, and the defect stays there while it grows, for as
long as the region has room for it; a larger one moves to the nearest cell that has.
"""

import numpy as np

from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.errors import DataError

LONGEST = 512  # cells along the longer side of an image


class Places:
    """The places in images of one size.

    Args:
        region: the part of an image that counts.
        image: width and height of the images in pixels.

    Raises:
        DataError: the region has no whole cell in such an image.
    """

    def __init__(self, region: RegionOfInterest, image: tuple[int, int]) -> None:
        from scipy import ndimage

        scale = max(1.0, max(image) / LONGEST)
        width, height = (max(1, round(length / scale)) for length in image)
        self.cell = (image[1] / height, image[0] / width)  # height and width in pixels
        inside = np.pad(region.draw(image, (width, height)), 1)
        # in cells, to the nearest one outside: a square of 2 d - 1 cells around a cell of distance d is inside
        self.depth = ndimage.distance_transform_cdt(inside, "chessboard")[1:-1, 1:-1]  # (h, w)
        if not self.depth.any():
            size = "{} × {} pixels".format(*image)
            raise DataError(f"the region is too small to draw a defect in, in an image of {size}: draw a larger one")

    def centre(self, share: np.ndarray, size: int) -> tuple[int, int]:
        """Return row and column, in pixels of the image, of the centre of a defect.

        Args:
            share: (2,) random numbers in [0, 1); the first one chooses among the cells inside.
            size: width of the defect in pixels. If it fits nowhere, it lies where most of it is inside.
        """
        rows, columns = np.nonzero(self.depth)
        chosen = min(int(share[0] * len(rows)), len(rows) - 1)
        room = (self.depth - 0.5) * min(self.cell)  # pixels from a cell's centre that are inside, in all directions
        fits = room >= size / 2 + 1  # 1: the soft edge of a defect
        if not fits.any():
            fits = self.depth == self.depth.max()
        down, across = np.nonzero(fits)
        nearest = np.argmin((down - rows[chosen]) ** 2 + (across - columns[chosen]) ** 2)
        return int((down[nearest] + 0.5) * self.cell[0]), int((across[nearest] + 0.5) * self.cell[1])
