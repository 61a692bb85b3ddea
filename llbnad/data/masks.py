"""The masks of an image: which files they are, how they lie on it, and all of them drawn into one.

An image may have several masks, one per defect. The manifest joins their paths with `|` in its column `mask_path`; a
reader that takes the text for one path fails, instead of counting one mask for all. No mask with `|` in its own name is
used.

Cameras write a turned image as it was stored and say in its EXIF orientation how it is seen. Its mask may have been
drawn on what is seen or on what is stored. A mask with an orientation of its own is turned by that. Any other mask is
turned as its image is if only then it has the shape of the image. If it has that shape either way (a square, or an
image turned upside down), nobody can know: it is not used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from llbnad.data.decode import ORIENTATION, UPRIGHT, as_stored
from llbnad.data.drawn import load_mask, mask_size
from llbnad.errors import DataError, ImageGoneError

SEPARATOR = "|"
ASPECT = 0.02  # largest relative difference of the aspect ratios of an image and its mask
LYING = (5, 6, 7, 8)  # orientations that exchange width and height


def join_masks(paths: Sequence[str]) -> str | None:
    """Return the cell of a manifest for the masks of one image: sorted, without doubles; None for no mask.

    Raises:
        DataError: a path holds the separator.
    """
    for path in paths:
        if SEPARATOR in path:
            raise DataError(f"the path of the mask {path} holds {SEPARATOR!r}, which separates masks: rename it")
    return SEPARATOR.join(sorted(set(paths))) or None


def split_masks(cell: str | None) -> list[str]:
    """Return the paths of the masks in a cell of a manifest; none for an empty cell."""
    return [] if pd.isna(cell) or not cell else str(cell).split(SEPARATOR)


def marked(row: Mapping[Any, Any], root: Path, size: tuple[int, int]) -> np.ndarray:
    """Return what any of the masks of a manifest's row marks, as booleans (height, width); nothing without a mask.

    Args:
        row: a row of a manifest whose masks `misfit` has passed.
        root: folder that the manifest's paths are relative to.
        size: (width, height) wanted. `load_mask` says which pixels are marked.

    Raises:
        ImageGoneError: a mask does not exist, or the image of a mask that has to be turned.
        DataError: a mask is unreadable.
    """
    united = np.zeros(size[::-1], bool)
    for path in split_masks(row["mask_path"]):
        mask = root / path
        if _lies_as_stored(mask, (row["width"], row["height"])):
            drawn = Image.fromarray(load_mask(mask, size[::-1]))
            drawn.getexif()[ORIENTATION] = orientation_of(root / row["path"])
            united |= np.asarray(ImageOps.exif_transpose(drawn))
        else:
            united |= load_mask(mask, size)
    return united


def misfit(image: Path, mask: Path, seen: tuple[int, int]) -> str | None:
    """Return why a mask does not lie on its image, or None if it does.

    Args:
        image: the file of the image.
        mask: the file of the mask.
        seen: width and height of the image as it is seen.

    Raises:
        FileNotFoundError: the mask does not exist.
        DataError: the mask is unreadable.
    """
    width, height = mask_size(mask)
    fits, crossed = _alike((width, height), seen), _alike((height, width), seen)
    turned = orientation_of(image)
    if turned != UPRIGHT and orientation_of(mask) == UPRIGHT:
        if (fits and crossed) or (fits and turned not in LYING):
            return (
                f"its image is turned (EXIF orientation {turned}), and the mask has the image's shape either way: save "
                "both without orientation, or both with it"
            )
        fits = fits or (crossed and turned in LYING)
    if fits:
        return None
    return f"the mask is {width} × {height}, and its image is seen as {seen[0]} × {seen[1]}"


def orientation_of(path: Path) -> int:
    """Return the EXIF orientation of an image file, 1 … 8; 1, not turned, if there is none or it is impossible.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the file is unreadable.
    """
    try:
        return as_stored(path)[1]
    except FileNotFoundError:
        raise ImageGoneError(f"image {path} is gone: restore the file, or read the data set again") from None


def _lies_as_stored(mask: Path, seen: tuple[int, int]) -> bool:
    """Return whether a mask that `misfit` has passed was drawn on its image as it is stored, lying on its side."""
    try:
        size, orientation = as_stored(mask)
    except (DataError, OSError):
        return False  # `load_mask` says why
    return orientation == UPRIGHT and not _alike(size, seen)


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two sizes, (width, height), have the same aspect ratio."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= ASPECT * one[0] * other[1]
