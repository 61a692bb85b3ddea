"""The limit on the pixels of an image file. Above it, a file is refused before it is decoded.

A file of some hundred bytes may ask for gigabytes of pixels.
"""

from PIL import Image

from llbnad.errors import ConfigError

USUAL = 89_478_485  # 256 MiB of RGB: above this, Pillow warns of a decompression bomb
_pixels = USUAL


def limit_pixels(pixels: int) -> None:
    """Set the most pixels, width × height, that an image file read by this process may have.

    Raises:
        ConfigError: the number is not in 1 … 2³¹-1.
    """
    global _pixels
    if not 0 < pixels < 1 << 31:
        raise ConfigError(f"the most pixels of an image is {pixels}; expected 1 … {(1 << 31) - 1}, usually {USUAL}")
    _pixels = pixels
    Image.MAX_IMAGE_PIXELS = max(pixels, USUAL)  # Pillow's own limit, at twice this number, stays behind ours


def max_pixels() -> int:
    """Return the most pixels that an image file may have."""
    return _pixels
