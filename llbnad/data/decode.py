"""Image files, decoded: which formats are read, which page of a file, how large it may be, and which way up it is.

A file may hold several pages: a TIFF of a camera, an animated GIF. `lot.tif#2` is the second page of `lot.tif`; a file
of several pages without a number is an error, so that no page is left out in silence. Pages are counted as people see
them: reduced copies and transparency masks in a TIFF are none, and neither are the further pictures of an MPO (the
preview or the second eye of a phone's JPEG) or the layers of a PSD.
"""

import hashlib
import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from llbnad.config import Pages
from llbnad.errors import DataError, NotAnImageError, PagesError
from llbnad.utils.files import file_digest
from llbnad.utils.pixel_limit import max_pixels

# Pillow's formats and their suffixes. Not read: EPS and WMF, which start another program or Windows' own drawing; FITS,
# whose 16 bits Pillow reads in the wrong order; forms of video, maps and games. TGA and SPIDER have no mark of their
# own and come last.
FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "PSD": (".psd",),
    "DDS": (".dds",),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "IM": (".im",),
    "MSP": (".msp",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "SPIDER": (".spider", ".spi"),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
PAGED = frozenset({"TIFF", "GIF", "WEBP", "PNG", "AVIF", "DCX"})  # formats whose frames are pictures of equal rank
ORIENTATION, UPRIGHT = 0x0112, 1  # EXIF tag, and its value for an image that is not turned
MAX_RATIO = 100  # of the longer side to the shorter: a thinner picture says nothing when it is resized to a square
UNREADABLE = (  # errors of Pillow's decoders and of its EXIF reader
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error,
)  # fmt: skip
PHOTOMETRIC, SUBFILE_TYPE, OLD_SUBFILE_TYPE = 262, 254, 255  # tags of TIFF
REDUCED_OR_MASK, OLD_REDUCED = 0b101, 2  # values of the last two
NUMBERED = re.compile(r"(?s)(.+)#([1-9][0-9]{0,5})")
SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # Pillow opens 16-bit PNG and TIFF as one of these
DEEP_MODES = (*SIXTEEN_BIT_MODES, "F")


@dataclass(frozen=True)
class Decoded:
    """A decoded image, turned as its EXIF orientation says, in Pillow's own mode."""

    image: Image.Image
    white_is_zero: bool = False  # the values above 8 bits count down from white; Pillow turns the others round itself
    cut_to_8_bits: bool = False  # colours of 16 bits, of which Pillow keeps the upper 8
    format: str = ""  # Pillow's name of the file's format

    @property
    def deep(self) -> bool:
        """Whether the values have more than 8 bits, so that a window decides what is black and what is white."""
        return self.image.mode in DEEP_MODES or self.cut_to_8_bits


def decode(source: Path | bytes) -> Decoded:
    """Decode an image file, or one page `FILE#NUMBER` of it, completely.

    Args:
        source: an image file, or the bytes of one.

    Raises:
        FileNotFoundError: the file does not exist.
        PagesError: the file has several pages, or fewer than the number asks for.
        DataError: the file is empty, not an image, in a format that is not read, too large, too thin or damaged.
    """
    with _opened(source) as (image, name):
        _turn_to_page(image, source, name)
        tags = getattr(image, "tag_v2", {})
        white_is_zero = tags.get(PHOTOMETRIC) == 0 and image.mode in DEEP_MODES
        form = image.format or ""
        cut = ";16" in _rawmode(image) and image.mode not in DEEP_MODES
        image.load()
        turned = ImageOps.exif_transpose(image)
        if turned.mode == "LAB":  # Pillow converts it to RGB alone
            turned = turned.convert("RGB")
        return Decoded(turned, white_is_zero, cut, form)


def as_stored(source: Path) -> tuple[tuple[int, int], int]:
    """Return width and height of an image file, or a page, as it is stored, and its EXIF orientation, 1 … 8.

    The orientation is 1, not turned, if there is none or it is impossible.

    Raises:
        FileNotFoundError: the file does not exist.
        PagesError, DataError: see `decode`; the content is not looked at.
    """
    with _opened(source) as (image, name):
        _turn_to_page(image, source, name)
        orientation = image.getexif().get(ORIENTATION, UPRIGHT)
        return image.size, orientation if orientation in range(1, 9) else UPRIGHT


def is_deep(source: Path) -> bool:
    """Return whether a file, or a page, holds values of more than 8 bits. Nothing is decoded; False if unreadable."""
    try:
        with _opened(source) as (image, name):
            _turn_to_page(image, source, name)
            return image.mode in DEEP_MODES or ";16" in _rawmode(image)
    except (DataError, OSError):
        return False


def pages_of(path: Path, pages: Pages) -> list[Path]:
    """Return the images that a file stands for: itself, `FILE#1`, or all of its pages.

    A file of one page, an unreadable one and, with `pages: error`, any file stands for itself.
    """
    if pages == "error" or page_of(path)[1] is not None:
        return [path]
    try:
        with _opened(path) as (image, _):
            count = len(_frames(image))
    except (DataError, OSError):
        return [path]
    if count < 2:
        return [path]
    return [path.with_name(f"{path.name}#{number}") for number in range(1, 2 if pages == "first" else count + 1)]


def page_of(path: Path) -> tuple[Path, int | None]:
    """Return the file of a path, and the number of its page, from 1; None if the path is a file's own name."""
    found = NUMBERED.fullmatch(path.name)
    if found is None or path.exists():
        return path, None
    return path.with_name(found[1]), int(found[2])


def image_digest(path: Path) -> str:
    """Return the identity of an image: the SHA-256 of its file; from page 2 on, of that digest and the page's number.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    file, page = page_of(path)
    digest = file_digest(file)
    return digest if page in (None, 1) else hashlib.sha256(f"{digest}#{page}".encode()).hexdigest()


@cache
def readable_formats() -> list[str]:
    """Return the formats of FORMATS that this build of Pillow opens, by the names that `Image.open` knows."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # MPO is opened as JPEG


@contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[Image.Image, str]]:
    """Open an image, and turn every way in which a file can be broken into one DataError that names it."""
    name = f"the image given as {len(source)} bytes" if isinstance(source, bytes) else str(source)
    try:
        file = source if isinstance(source, bytes) else page_of(source)[0]
        if (len(file) if isinstance(file, bytes) else file.stat().st_size) == 0:
            raise DataError(f"{name} is empty (0 bytes)")
        # Pillow maps a file that it opens by name, and then mixes up the rows of a TIFF that lies on its side
        stream = io.BytesIO(file) if isinstance(file, bytes) else file.open("rb")
        with stream, Image.open(stream, formats=readable_formats()) as image:
            _check_size(image, name)
            yield image, name
    except FileNotFoundError:
        raise
    except UnidentifiedImageError:
        raise NotAnImageError(f"{name} {_why_not(file)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is too large: {error}") from None
    except UNREADABLE as error:
        raise DataError(f"{name} is damaged: {error}") from None


def _turn_to_page(image: Image.Image, source: Path | bytes, name: str) -> None:
    """Go to the page that `source` asks for.

    Raises:
        PagesError: the file has several pages and none is asked for, or it lacks the page.
        DataError: the page is too large or too thin.
    """
    page = None if isinstance(source, bytes) else page_of(source)[1]
    frames = _frames(image)
    if page is None and len(frames) > 1:
        remedy = "give each page alone" if isinstance(source, bytes) else "set pages to first or each"
        raise PagesError(f"{name} has {len(frames)} pages: {remedy}")
    if page is not None and page > len(frames):
        raise PagesError(f"{name} does not exist: the file has {len(frames)} page{'s' * (len(frames) > 1)}")
    if len(frames) > 1 or frames[0]:
        image.seek(frames[(page or 1) - 1])
    _check_size(image, name)


def _check_size(image: Image.Image, name: str) -> None:
    size = f"{image.width} × {image.height} pixels"
    # Pillow's warning is not turned into an error: warning filters belong to the process, and threads share it
    if image.width * image.height > max_pixels():
        raise DataError(
            f"{name} is too large: {size}, at most {max_pixels():,}: set max_pixels to more, or make it smaller"
        )
    if max(image.size) > MAX_RATIO * min(image.size):
        raise DataError(
            f"{name} is too thin: {size}; expected a longer side of at most {MAX_RATIO} times the shorter: "
            "cut it into pieces"
        )


def _why_not(file: Path | bytes) -> str:
    """Return why a file is not read: its format, if that is one of Pillow's others. Nothing is decoded."""
    if isinstance(file, bytes):
        prefix = file[:64]
    else:
        with file.open("rb") as stream:
            prefix = stream.read(64)
    prefix = prefix.ljust(64, b"\0")  # Pillow's tests of a prefix do not look at its length
    for name, (_, accept) in Image.OPEN.items():
        if name not in FORMATS and accept is not None and accept(prefix) is True:
            return f"is in the format {name}, which is not read: save it as PNG or TIFF"
    return "is not an image that Pillow can read"


def _frames(image: Image.Image) -> list[int]:
    """Return the numbers of the frames that are pages, at least one."""
    count = getattr(image, "n_frames", 1) if image.format in PAGED else 1
    if image.format != "TIFF" or count == 1:
        return list(range(count))
    found = []
    for frame in range(count):
        image.seek(frame)
        tags = image.tag_v2  # type: ignore[attr-defined]
        reduced = tags.get(SUBFILE_TYPE, 0) & REDUCED_OR_MASK or tags.get(OLD_SUBFILE_TYPE) == OLD_REDUCED
        if not reduced:
            found.append(frame)
    image.seek(0)
    return found or [0]


def _rawmode(image: Image.Image) -> str:
    """Return the form in which the file stores its values, as Pillow calls it; empty if it does not say."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""
