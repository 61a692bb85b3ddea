"""Small pictures of every mode and format, whole and damaged: read as images and as masks, or refused in words."""

import io
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llbnad.data.drawn import load_mask, looks_like_mask, mask_size
from llbnad.data.images import load_rgb, load_square
from tests.unit.properties import damaged, everything, examples, refused

MODES = [
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "I",
    "I;16",
    "I;16B",
    "F",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
]
FORMATS = ["PNG", "TIFF", "BMP", "JPEG", "WEBP", "GIF", "PPM", "TGA", "ICO", "JPEG2000"]
SUFFIXES = [".png", ".jpg", ".tif", ".bmp", ".webp", ".JPEG", ""]
MAGIC = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00\x20Exif\x00\x00", b"BM", b"II*\x00", b"MM\x00*", b"II+\x00",
         b"RIFF\x20\x00\x00\x00WEBPVP8 ", b"GIF89a",
         b"P6\n9 9 255\n", b"%!PS-Adobe", b"\x00\x00\x00\x0cjP  \r\n\x87\n"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@st.composite
def pictures(draw):
    """Draw the bytes of a picture file; a format that does not hold the mode is replaced by TIFF, then by PNG."""
    mode = draw(st.sampled_from(MODES))
    size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    image = Image.new(mode, size)
    length = len(image.tobytes())
    image.frombytes(draw(st.binary(min_size=length, max_size=length)))
    if mode in ("P", "PA") and draw(st.booleans()):
        image.putpalette(draw(st.binary(min_size=6, max_size=48).map(lambda colours: colours[: len(colours) // 3 * 3])))
    options = {"exif": _orientation(draw(st.integers(0, 9)))} if draw(st.booleans()) else {}
    if draw(st.booleans()) and mode in ("1", "L", "P", "RGB"):
        options["transparency"] = draw(st.integers(0, 255)) if mode != "RGB" else (0, 0, 0)
    for kind in (draw(st.sampled_from(FORMATS)), "TIFF", "PNG"):
        stream = io.BytesIO()
        try:
            image.save(stream, kind, **options)
            return stream.getvalue()
        except (OSError, KeyError, ValueError, TypeError, SystemError):
            image = image if kind != "TIFF" else Image.new("L", size)
    raise AssertionError("PNG holds every grey picture")


def _orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def read_in_every_way(path):
    """Return how many of the readers refuse the file."""
    before = everything(path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about broken metadata
        found = [
            refused(load_rgb, path),
            refused(load_rgb, path.read_bytes()),
            refused(load_square, path, 32),
            refused(load_mask, path, (5, 7)),
            refused(mask_size, path),
        ]
        assert not refused(looks_like_mask, path)
        assert (looks_like_mask(path) is None) == found[-1]
    assert everything(path.parent) == before
    return sum(found)


@examples(100)
@given(content=pictures(), suffix=st.sampled_from(SUFFIXES))
def test_every_whole_picture_is_read(place, content, suffix):
    path = place / f"picture{suffix}"
    path.write_bytes(content)
    assert read_in_every_way(path) == 0
    rgb, mask = load_rgb(path), load_mask(path, (5, 7))
    assert rgb.mode == "RGB" and rgb.size == mask_size(path)
    assert mask.shape == (7, 5) and mask.dtype == bool


@examples(150)
@given(content=pictures().flatmap(damaged), suffix=st.sampled_from(SUFFIXES))
def test_a_damaged_picture_is_read_or_refused_in_words(place, content, suffix):
    path = place / f"damaged{suffix}"
    path.write_bytes(content)
    read_in_every_way(path)


@examples(100)
@given(content=st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=80)) | st.binary(max_size=40))
def test_any_bytes_are_refused_in_words(place, content):
    path = place / "any.png"
    path.write_bytes(content)
    read_in_every_way(path)
