"""The limit on the pixels of an image file. Above it, a file is refused before it is decoded.

A file of some hundred bytes may ask for gigabytes of pixels.
"""

from PIL import Image

from llbnad.config import MOST_PIXELS, USUAL_PIXELS, Dataset, Files
from llbnad.errors import ConfigError

_pixels = USUAL_PIXELS


def limit_pixels(pixels: int) -> None:
    """Set the most pixels, width × height, that an image file read by this process may have.

    Raises:
        ConfigError: the number is not in 1 … 2³¹-1.
    """
    global _pixels
    if not 0 < pixels <= MOST_PIXELS:
        raise ConfigError(
            f"the most pixels of an image is {pixels}; expected 1 … {MOST_PIXELS}, usually {USUAL_PIXELS}"
        )
    _pixels = pixels
    Image.MAX_IMAGE_PIXELS = max(pixels, USUAL_PIXELS)  # Pillow's own limit, at twice this number, stays behind ours


def limit_pixels_of(dataset: Dataset | Files) -> None:
    """Set the most pixels of an image file, in this process, to those that a data set allows."""
    limit_pixels(dataset.max_pixels if isinstance(dataset, Files) else USUAL_PIXELS)


def max_pixels() -> int:
    """Return the most pixels that an image file may have."""
    return _pixels
