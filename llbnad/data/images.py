"""Image files of any pixel format, read as 8-bit RGB.

Cameras write grey 16-bit TIFFs, palettes, floats and alpha channels. Each format has one rule that maps its values to
0 … 255: 8 bits are not changed, and deeper values are read by the window of their data set (`llbnad.data.intensity`).
No image of a data set is stretched to its own range, so that two images of one line stay comparable.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llbnad.config import Window
from llbnad.data.decode import Decoded, decode
from llbnad.data.intensity import (
    FULL_INTEGERS,
    as_grey,
    auto_window,
    bounds,
    quantiles,
    share_outside,
    shown,
)
from llbnad.errors import DataError, ImageGoneError

CLIPPED = 0.99  # share of an image's values outside the window above which it shows nothing


@dataclass(frozen=True)
class Picture:
    """An image as the method sees it."""

    image: Image.Image  # 8-bit RGB
    deep: bool  # the file holds more than 8 bits, which a window maps to 0 … 255
    outside: float = 0.0  # share of its values outside the window, in [0, 1]
    cut_to_8_bits: bool = False  # colours of 16 bits, of which only the upper 8 are read


def load_rgb(source: Path | bytes, window: Window | None = None) -> Image.Image:
    """Decode an image file completely and return it as 8-bit RGB, turned as its EXIF orientation says.

    Values above 8 bits are read by `window`. Without one, 16-bit integers are read as 0 … 65,535; the range of floats
    and of 32-bit integers is not known, and their own values decide by the rule `auto`. Transparent pixels are laid
    over black; an alpha channel that is 0 everywhere is none.

    Args:
        source: an image file, one page of it (`FILE#2`), or the bytes of a file.
        window: values of deep images that are black and white; 8-bit images do not need it.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is empty, not an image, too large, too thin or damaged, has several pages, or holds no
            finite value.
    """
    return load_picture(source, window).image


def load_picture(source: Path | bytes, window: Window | None = None) -> Picture:
    """Return the image of `load_rgb` and what the window did to it. Arguments and errors are the same."""
    found = decode(source)
    if not found.deep:
        return Picture(_eight_bits(found.image), deep=False)
    values = _values(found, source)
    if window is None:
        window = _own_window(found, values)
    grey = Image.fromarray(as_grey(values, window, found.white_is_zero))
    return Picture(grey.convert("RGB"), True, share_outside(values, window), found.cut_to_8_bits)


def deep_values(source: Path) -> tuple[np.ndarray, bool]:
    """Return the quantiles of the values of a deep image (`llbnad.data.intensity`), and whether they are floats.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the image is unreadable.
    """
    found = decode(source)
    return quantiles(_values(found, source)), found.image.mode == "F"


def _values(found: Decoded, source: Path | bytes) -> np.ndarray:
    """Return the values of a deep image: (H, W), or (H, W, 3) in steps of 257 if Pillow has cut them to 8 bits."""
    if found.cut_to_8_bits:
        return np.asarray(_eight_bits(found.image)).astype(np.uint16) * 257
    values = np.asarray(found.image)
    if not np.isfinite(values).any():
        name = source if isinstance(source, Path) else "the image"
        raise DataError(f"{name} is damaged: none of its values is a finite number")
    return values


def _own_window(found: Decoded, values: np.ndarray) -> Window:
    if found.image.mode not in ("F", "I"):
        return FULL_INTEGERS
    return auto_window(*bounds([quantiles(values)]), floats=found.image.mode == "F")


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        colour = image.convert("RGBA")
        if colour.getchannel("A").getextrema() == (0, 0):  # a channel that the camera left unused, not transparency
            return colour.convert("RGB")
        return Image.alpha_composite(Image.new("RGBA", colour.size, (0, 0, 0, 255)), colour).convert("RGB")
    return image.convert("RGB")


def count_values(image: Image.Image) -> int:
    """Return the number of distinct grey values of an RGB image: 1, 2, or 3 for more. One value is one colour."""
    if all(band.getextrema()[0] == band.getextrema()[1] for band in image.split()):
        return 1
    return min(max(2, sum(count > 0 for count in image.convert("L").histogram())), 3)


def load_square(source: Path | bytes | np.ndarray, size: int, window: Window | None = None) -> np.ndarray:
    """Return an image as uint8 RGB (size, size, 3). The aspect ratio is not kept. See `load_sized`."""
    return load_sized(source, size, window)[0]


def load_sized(
    source: Path | bytes | np.ndarray, size: int, window: Window | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return an image as uint8 RGB (size, size, 3), and its own (width, height) as it is seen.

    Args:
        source: an image file, the bytes of one, or its pixels (H, W, 3) uint8.
        size: side in pixels.
        window: see `load_rgb`.

    Raises:
        ImageGoneError, DataError: see `load_whole`.
    """
    image = load_whole(source, window)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)), image.size


def load_whole(source: Path | bytes | np.ndarray, window: Window | None = None) -> Image.Image:
    """Return an image as 8-bit RGB in its own size.

    Args:
        source: an image file, the bytes of one, or its pixels (H, W, 3) uint8.
        window: see `load_rgb`.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the image is unreadable, nearly all of its values are outside the window, or the array is not
            (H, W, 3) uint8.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise DataError(f"the image has shape {source.shape} and type {source.dtype}; expected (H, W, 3) uint8")
        return Image.fromarray(source)
    try:
        picture = load_picture(source, window)
    except FileNotFoundError:
        raise ImageGoneError(f"image {source!s} is gone: restore the file, or read the data set again") from None
    if picture.outside > CLIPPED:
        name = source if isinstance(source, Path) else "the image"
        by = "finite numbers" if window is None else f"in the window {shown(window)} of the images trained on"
        raise DataError(f"{name} shows nothing: {picture.outside:.1%} of its values are not {by}")
    return picture.image
