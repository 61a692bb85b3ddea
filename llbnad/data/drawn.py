"""Masks as files: whether a file is drawn rather than photographed, and what is drawn in it.

What is drawn is what is not black: of a palette, its colours. If the file has an alpha channel that says anything, what
is opaque is drawn, in any colour. Formats that lose bits, such as JPEG, ring around every edge. There, a pixel belongs
to what it is nearest to: to black, or to one of the colours that fill areas. Numbers of classes (1, 2 …) drown in that
ringing, so such a file is refused.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llbnad.data.decode import SIXTEEN_BIT_MODES, Decoded, decode, pages_of
from llbnad.errors import DataError, ImageGoneError

LOSSY, MAY_LOSE = frozenset({"JPEG", "MPO"}), frozenset({"WEBP", "AVIF", "JPEG2000"})  # formats that lose bits
FEW_COLOURS, EQUAL_NEIGHBOURS = 32, 0.9  # a map of classes: one colour per class, and most pixels equal the next one
DRAWN, NEARLY = 0.9, 9  # share of the pixels of a mask that are within so many grey values of black or white
BLACK = 4  # grey values of a drawn background, at least half of the pixels where there is ringing
RINGING = 24  # below, a value may be ringing around black
OPAQUE = 128  # of an alpha channel
FEWEST_PIXELS, SPECKS = 9, 0.01  # of the even pixels of an area, alone and as a share of all: ringing has even spots
FLAT, APART = 6, 48  # most difference of neighbours inside of an area; least difference of the colours of two areas
# of the pixels outside of black: share that has the colour of an area, and colourfulness, from which on they are drawn
CONCENTRATED, COLOURFUL = 0.65, 0.5


def looks_like_mask(path: Path) -> bool | None:
    """Return whether a file is drawn rather than photographed: black and white, but for soft edges or ringing.

    A palette counts as drawn, and so do maps of classes: of a few colours, in areas. The first page of several decides.
    None means that the file cannot be read.
    """
    try:
        found = decode(pages_of(path, "first")[0])
    except (DataError, OSError):
        return None
    image = found.image
    if image.mode in ("1", "P"):
        return True
    if image.mode in SIXTEEN_BIT_MODES or image.mode == "F":
        return len(np.unique(np.asarray(image))) <= 2
    counts = image.convert("L").histogram()
    if sum(count > 0 for count in counts) <= 2:
        return True
    if is_black_and_white(counts):
        return True
    if not _rings(found):
        return _is_flat(image)
    all_pixels = image.width * image.height
    if sum(counts[:BLACK]) < all_pixels / 2:
        return False
    # a defect of a few pixels is grey in a JPEG
    return sum(counts[:NEARLY]) >= DRAWN * all_pixels or _is_ringing_map(np.asarray(image.convert("RGB")))


def is_black_and_white(histogram: Sequence[int]) -> bool:
    """Return whether an image is nearly black and white, with little between, by the counts of its 256 grey values."""
    black, white = sum(histogram[:NEARLY]), sum(histogram[-NEARLY:])
    return white > 0 and black + white >= DRAWN * sum(histogram)


def load_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return a defect mask as booleans (height, width).

    A pixel belongs to the defect if at least half of its area does. A mask that is too thin everywhere for this rule
    keeps every pixel that it touches, so that no defect vanishes. A thin part beside a thick part vanishes.

    Args:
        path: image file.
        size: (width, height) wanted.

    Raises:
        ImageGoneError: the file does not exist.
        DataError: the file is unreadable, or numbers of classes have drowned in the ringing of its format.
    """
    try:
        found = decode(path)
    except FileNotFoundError:
        raise ImageGoneError(f"mask {path} is gone: restore the file, or read the data set again") from None
    area = Image.fromarray(_is_drawn(found, path).astype(np.float32)).resize(size, Image.Resampling.BOX)
    coverage = np.asarray(area)
    mask = coverage >= 0.5
    return mask if mask.any() else coverage > 0


def mask_size(path: Path) -> tuple[int, int]:
    """Return width and height of a mask as it is seen, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: as `load_mask`.
    """
    found = decode(path)
    if _rings(found):
        _is_drawn(found, path)
    return found.image.size


def _is_drawn(found: Decoded, path: Path) -> np.ndarray:
    """Return where something is drawn, bool (H, W)."""
    image = found.image
    if image.mode in ("1", "F", *SIXTEEN_BIT_MODES):
        return np.nan_to_num(np.asarray(image)) > 0
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() != alpha.max():
            return alpha >= OPAQUE
    brightest = _brightest(image)
    if not _rings(found):
        return brightest > 0
    if 0 < brightest.max() < RINGING:
        raise DataError(
            f"{path} holds values of at most {brightest.max()}, and its format loses such numbers of classes: "
            "save it as PNG"
        )
    # half of the largest value, because a defect of a few pixels is no area and darker than it was drawn
    bright = brightest >= max(brightest.max() / 2, RINGING)
    return bright | _is_near_an_area(np.asarray(image.convert("RGB")))


def _brightest(image: Image.Image) -> np.ndarray:
    """Return the largest of the three colours of each pixel, uint8 (H, W)."""
    return np.asarray(image.convert("RGB")).max(axis=-1)


def _rings(found: Decoded) -> bool:
    """Return whether the format may have lost bits, so that there is ringing around edges."""
    if found.image.mode in ("1", "F", *SIXTEEN_BIT_MODES):
        return False
    return found.format in LOSSY or (found.format in MAY_LOSE and _brightest(found.image).max() >= RINGING)


def _is_near_an_area(pixels: np.ndarray) -> np.ndarray:
    """Return where the colour is nearer to that of an area than to black, bool (H, W), for pixels (H, W, 3) uint8."""
    values = pixels.astype(np.int32)
    nearest = (values**2).sum(axis=-1)
    found = np.zeros(nearest.shape, bool)
    inside = values[1:-1, 1:-1][_is_even(values)]
    coloured = inside[inside.max(axis=-1) >= RINGING]
    areas = [colour for colour, count in _areas(coloured) if count >= max(FEWEST_PIXELS, SPECKS * len(coloured))]
    for colour in areas:
        distance = ((values - colour) ** 2).sum(axis=-1)
        found |= distance < nearest
    return found


def _is_even(values: np.ndarray) -> np.ndarray:
    """Return where a pixel is like its neighbours, so that it lies in an area, bool (H-2, W-2), of values (H, W, 3)."""
    inner = values[1:-1, 1:-1]
    around = (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:])
    return np.all([np.abs(inner - one).max(axis=-1) <= FLAT for one in around], axis=0)


def _areas(colours: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield up to FEW_COLOURS frequent colours that are apart, and the number of colours (N, 3) that are near each."""
    found, counts = np.unique(colours, axis=0, return_counts=True)
    for _ in range(FEW_COLOURS):
        if not len(found):
            return
        colour = found[counts.argmax()]
        distance = np.abs(found - colour).max(axis=-1)
        yield colour, int(counts[distance <= FLAT].sum())
        found, counts = found[distance > APART], counts[distance > APART]


def _is_flat(image: Image.Image) -> bool:
    """Return whether an image is a map of classes: of a few colours, in areas; a dark photo is noisy."""
    if image.convert("RGB").getcolors(FEW_COLOURS) is None:
        return False
    pixels = np.asarray(image.convert("RGB"))
    return bool((pixels[:, 1:] == pixels[:, :-1]).all(axis=-1).mean() >= EQUAL_NEIGHBOURS)


def _is_ringing_map(pixels: np.ndarray) -> bool:
    """Return whether pixels (H, W, 3) uint8 are a map of classes that rings: few or strong colours, mostly on black."""
    brightest = pixels.max(axis=-1)
    marked = pixels[brightest > APART].astype(np.int32)
    if not len(marked):
        return False
    colourfulness = 1 - marked.min(axis=-1) / marked.max(axis=-1)
    near = sum(count for _, count in _areas(marked))
    return bool(np.median(colourfulness) >= COLOURFUL or near >= CONCENTRATED * len(marked))
