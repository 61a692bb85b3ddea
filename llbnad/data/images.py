"""Image files of any pixel format, read as 8-bit RGB; masks, read as booleans.

Cameras write grey 16-bit TIFFs, palettes, floats and alpha channels. Each format has one rule that maps its values to
0 … 255: 8 bits are not changed, and deeper values are read by the window of their data set (`llbnad.data.intensity`).
No image of a data set is stretched to its own range, so that two images of one line stay comparable.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llbnad.config import Window
from llbnad.data.decode import SIXTEEN_BIT_MODES, Decoded, decode
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

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
CLIPPED = 0.99  # share of an image's values outside the window above which it shows nothing
FEW_COLOURS, EQUAL_NEIGHBOURS = 32, 0.9  # a map of classes: one colour per class, and most pixels equal the next one
DRAWN, NEARLY = 0.9, 9  # share of the pixels of a mask that are within so many grey values of black or white


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


def looks_like_mask(path: Path) -> bool | None:
    """Return whether a file is drawn rather than photographed: black and white, but for soft edges or JPEG's ringing.

    A palette counts as drawn. None means that the file cannot be read.
    """
    try:
        image = decode(path).image
    except (DataError, OSError):
        return None
    if image.mode in ("1", "P"):
        return True
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        return len(np.unique(np.asarray(image))) <= 2
    counts = image.convert("L").histogram()
    if sum(count > 0 for count in counts) <= 2:
        return True
    if _is_flat(image):
        return True
    black, white, all_pixels = sum(counts[:NEARLY]), sum(counts[-NEARLY:]), image.width * image.height
    rings = path.suffix.lower() in JPEG and black >= DRAWN * all_pixels  # a defect of a few pixels is grey there
    return (white > 0 and black + white >= DRAWN * all_pixels) or rings


def _is_flat(image: Image.Image) -> bool:
    """Return whether an image is a map of classes: of a few colours, in areas; a dark photo is noisy."""
    if image.convert("RGB").getcolors(FEW_COLOURS) is None:
        return False
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels[:, 1:] == pixels[:, :-1]).all(axis=-1).mean() >= EQUAL_NEIGHBOURS)


def load_square(source: Path | bytes | np.ndarray, size: int, window: Window | None = None) -> np.ndarray:
    """Return an image as uint8 RGB (size, size, 3). The aspect ratio is not kept.

    Args:
        source: an image file, the bytes of one, or its pixels (H, W, 3) uint8.
        size: side in pixels.
        window: see `load_rgb`.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the image is unreadable, nearly all of its values are outside the window, or the array is not
            (H, W, 3) uint8.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise DataError(f"the image has shape {source.shape} and type {source.dtype}; expected (H, W, 3) uint8")
        image = Image.fromarray(source)
    else:
        try:
            picture = load_picture(source, window)
        except FileNotFoundError:
            raise ImageGoneError(f"image {source!s} is gone: restore the file, or read the data set again") from None
        if picture.outside > CLIPPED:
            name = source if isinstance(source, Path) else "the image"
            by = "finite numbers" if window is None else f"in the window {shown(window)} of the images trained on"
            raise DataError(f"{name} shows nothing: {picture.outside:.1%} of its values are not {by}")
        image = picture.image
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def load_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return a defect mask as booleans (height, width).

    A pixel belongs to the defect if at least half of its area does. A mask that is too thin everywhere for this rule
    keeps every pixel that it touches, so that no defect vanishes. A thin part beside a thick part vanishes.

    What is drawn is what is not black: of a palette, its colours; of a JPEG, what is brighter than half, because its
    edges ring. If the file has an alpha channel that says anything, what is opaque is drawn, in any colour.

    Args:
        path: image file.
        size: (width, height) wanted.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the file is unreadable.
    """
    try:
        drawn = decode(path).image
    except FileNotFoundError:
        raise ImageGoneError(f"mask {path} is gone: restore the file, or read the data set again") from None
    defect = _is_drawn(drawn, path.suffix.lower() in JPEG)
    area = Image.fromarray(defect.astype(np.float32)).resize(size, Image.Resampling.BOX)
    coverage = np.asarray(area)
    mask = coverage >= 0.5
    return mask if mask.any() else coverage > 0


def _is_drawn(image: Image.Image, rings: bool) -> np.ndarray:
    """Return where something is drawn, bool (H, W). `rings`: the file is a JPEG."""
    if image.mode in ("1", "F", *SIXTEEN_BIT_MODES):
        return np.nan_to_num(np.asarray(image)) > 0
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha >= 128
    brightest = np.asarray(image.convert("RGB")).max(axis=-1)
    return brightest >= 128 if rings else brightest > 0


def mask_size(path: Path) -> tuple[int, int]:
    """Return width and height of a mask as it is seen, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is unreadable.
    """
    return decode(path).image.size
