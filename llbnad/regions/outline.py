"""Outlines of regions on a picture."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

COLOUR = "#00FF00"
THICKNESS = 1 / 300  # of a line, as a share of the picture's longer side


def lay_outline(picture: "Image.Image", mask: np.ndarray) -> None:
    """Draw the outline of a mask on a picture, in place and inside the mask.

    Args:
        picture: RGB.
        mask: (H, W) bool, of the picture's size.
    """
    from PIL import Image
    from scipy import ndimage

    if not mask.any():
        return
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    width = max(1, round(THICKNESS * max(picture.size)))
    core = ndimage.minimum_filter(inside, 2 * width + 1, mode="constant", cval=0)
    picture.paste(COLOUR, (left, top), Image.fromarray((inside - core) * 255))
