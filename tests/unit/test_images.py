"""Every pixel format becomes 8-bit RGB; every kind of broken file becomes one clear error."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from llbnad.data.drawn import load_mask, looks_like_mask
from llbnad.data.images import load_rgb
from llbnad.errors import DataError, ImageGoneError
from tests.conftest import save_image


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_a_fixed_rule(tmp_path, suffix):
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    assert np.asarray(load_rgb(tmp_path / f"deep.{suffix}"))[0].tolist() == [[0] * 3, [1] * 3, [255] * 3]


def test_dark_16_bit_image_is_not_stretched(tmp_path):
    Image.fromarray(np.full((2, 2), 2570, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert set(np.asarray(load_rgb(tmp_path / "dark.png")).ravel()) == {10}


def test_float_image_of_unit_range(tmp_path):
    Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert np.asarray(load_rgb(tmp_path / "f.tif"))[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB"])
def test_every_mode_becomes_rgb_of_the_same_size(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode in ("CMYK", "LAB") else "image.png")
    Image.new("RGB", (7, 5), (255, 255, 255)).convert(mode).save(path)
    image = load_rgb(path)
    assert (image.mode, image.size) == ("RGB", (7, 5))
    assert np.asarray(image).min() >= 250
    assert looks_like_mask(path)


def test_transparent_pixels_are_black(tmp_path):
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    half.putpixel((0, 0), (255, 0, 0, 255))
    half.save(tmp_path / "clear.png")
    assert np.asarray(load_rgb(tmp_path / "clear.png"))[..., 0].tolist() == [[255, 0], [0, 0]]


def broken(folder, kind):
    path = folder / f"{kind}.png"
    whole = save_image(folder / "whole.png", size=(64, 64)).read_bytes()
    path.write_bytes({"empty": b"", "text": b"not an image", "truncated": whole[: len(whole) // 2]}[kind])
    return path


@pytest.mark.parametrize(("kind", "reason"), [("empty", "0 bytes"), ("text", "not an image"), ("truncated", "damaged")])
def test_broken_file_is_an_error_that_names_it(tmp_path, kind, reason):
    path = broken(tmp_path, kind)
    with pytest.raises(DataError, match=reason) as caught:
        load_rgb(path)
    assert str(path) in str(caught.value)


def test_exif_orientation_turns_the_image(tmp_path):
    """A camera held upright writes the picture lying down and says so; people, and masks, see it upright."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # left half white; turned clockwise it is the upper half
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=tag)
    image = load_rgb(tmp_path / "turned.png")
    assert image.size == (8, 16)
    assert np.asarray(image)[:8].min() == 255 and np.asarray(image)[8:].max() == 0
    assert load_mask(tmp_path / "turned.png", (8, 16))[:8].all()


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_that_lies_on_its_side_is_turned_as_well(tmp_path, compression):
    """Pillow mixes up the rows of an uncompressed one that it opens by its name."""
    pixels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    Image.fromarray(pixels).save(tmp_path / "lying.tif", tiffinfo={0x0112: 6}, compression=compression)
    assert np.array_equal(np.asarray(load_rgb(tmp_path / "lying.tif"))[..., 0], np.rot90(pixels, -1))


def test_damaged_exif_is_an_error_that_names_the_file(tmp_path):
    """Pillow meets it when it turns the image, and raises whatever the wrong bytes lead to."""
    tag = Image.Exif()
    tag[0x0112], tag[0x011A] = 6, 72.0  # orientation, resolution
    content = tag.tobytes()
    at = content.index(b"\x01\x1a") + 2
    content = content[:at] + b"\x00\x01" + content[at + 2 :]  # a resolution of type BYTE
    Image.new("RGB", (16, 8)).save(tmp_path / "odd.jpg", exif=content)
    with pytest.raises(DataError, match=r"odd\.jpg is damaged"):
        load_rgb(tmp_path / "odd.jpg")


def test_one_of_several_pages_is_read_only_if_it_is_named(tmp_path):
    frames = [Image.new("L", (6, 6), value) for value in (40, 200)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    for number, value in ((1, 40), (2, 200)):
        assert set(np.asarray(load_rgb(tmp_path / f"pages.tif#{number}")).ravel()) == {value}
    with pytest.raises(DataError, match=r"pages\.tif has 2 pages: set pages to first or each"):
        load_rgb(tmp_path / "pages.tif")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_image_is_refused_by_every_thread(tmp_path):
    """Warning filters belong to the process: an image just above the bound used to pass when threads met."""
    path = tmp_path / "wide.png"
    Image.new("1", (100_000, 900)).save(path)

    def refused(_):
        with pytest.raises(DataError, match="too large: 100000 × 900 pixels"):
            load_rgb(path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(refused, range(64)))


def test_mask_keeps_half_covered_pixels_and_loses_no_thin_defect(tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[:4, :6] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png", (2, 2)).tolist() == [[True, True], [False, False]]
    thin = np.zeros((100, 100), np.uint8)
    thin[50, 50] = 1
    Image.fromarray(thin).save(tmp_path / "thin.png")
    assert load_mask(tmp_path / "thin.png", (10, 10)).sum() == 1


def test_missing_mask_says_what_to_do(tmp_path):
    with pytest.raises(ImageGoneError, match=r"gone\.png is gone: restore the file, or read the data set again"):
        load_mask(tmp_path / "gone.png", (4, 4))
