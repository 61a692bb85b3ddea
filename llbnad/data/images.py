"""Image files of any pixel format, read as 8-bit RGB; masks, read as booleans.

Cameras write grey 16-bit TIFFs, palettes, floats and alpha channels. Each format has one fixed rule that maps its
values to 0 … 255. No image is stretched to its own range, so that two images of one line stay comparable.
"""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from llbnad.errors import DataError, ImageGoneError, NotAnImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 89_478_485  # 256 MiB of RGB: above this, Pillow warns of a decompression bomb
UNREADABLE = (  # errors of Pillow's decoders and of its EXIF reader
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
JPEG = (".jpg", ".jpeg")
DRAWN, NEARLY = 0.9, 9  # share of the pixels of a mask that are within so many grey values of black or white
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow opens 16-bit PNG and TIFF as one of these


def load_rgb(source: Path | bytes) -> Image.Image:
    """Decode an image file completely and return it as 8-bit RGB, turned as its EXIF orientation says.

    Only the first frame is read. Integers above 8 bits are read as 16-bit, floats as 0 … 1 (as 0 … 255 if a value
    exceeds 1). Transparent pixels are laid over black; an alpha channel that is 0 everywhere is none.

    Args:
        source: an image file, or the bytes of one.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the file is empty, not an image, too large or damaged.
    """
    image = _open(source)
    if image.mode in SIXTEEN_BIT_MODES:
        return _grey(np.asarray(image).astype(np.float64) / 257)
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image).astype(np.float64))
        return _grey(values * 255 if values.max(initial=0) <= 1 else values)
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
        image = _open(path)
    except (DataError, OSError):
        return None
    if image.mode in ("1", "P"):
        return True
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        return len(np.unique(np.asarray(image))) <= 2
    counts = image.convert("L").histogram()
    if sum(count > 0 for count in counts) <= 2:
        return True
    black, white, all_pixels = sum(counts[:NEARLY]), sum(counts[-NEARLY:]), image.width * image.height
    rings = path.suffix.lower() in JPEG and black >= DRAWN * all_pixels  # a defect of a few pixels is grey there
    return (white > 0 and black + white >= DRAWN * all_pixels) or rings


def load_square(source: Path | bytes | np.ndarray, size: int) -> np.ndarray:
    """Return an image as uint8 RGB (size, size, 3). The aspect ratio is not kept.

    Args:
        source: an image file, the bytes of one, or its pixels (H, W, 3) uint8.
        size: side in pixels.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the image is unreadable, or the array is not (H, W, 3) uint8.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or not source.size:
            raise DataError(f"the image has shape {source.shape} and type {source.dtype}; expected (H, W, 3) uint8")
        image = Image.fromarray(source)
    else:
        try:
            image = load_rgb(source)
        except FileNotFoundError:
            raise ImageGoneError(f"image {source!s} is gone: restore the file, or read the data set again") from None
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
        drawn = _open(path)
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
    return _open(path).size


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def _open(source: Path | bytes) -> Image.Image:
    """Return the decoded file. Raise one DataError for every way in which a file can be broken."""
    name = source if isinstance(source, Path) else f"the image given as {len(source)} bytes"
    try:
        if (source.stat().st_size if isinstance(source, Path) else len(source)) == 0:
            raise DataError(f"{name} is empty (0 bytes)")
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            # Pillow's warning is not turned into an error: warning filters belong to the process, and threads share it
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name} is too large: {image.width} × {image.height} pixels, at most {MAX_PIXELS:,}")
            image.load()
            turned = ImageOps.exif_transpose(image)
            return turned.convert("RGB") if turned.mode == "LAB" else turned  # Pillow converts Lab to nothing else
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise NotAnImageError(f"{name} is not an image that Pillow can read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is too large: {error}") from None
    except UNREADABLE as error:
        raise DataError(f"{name} is damaged: {error}") from None
