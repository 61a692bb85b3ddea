"""Names that people know images by: stored beside the content, shown alone, and without an effect on results."""

import pytest

from llbnad.config import ImageFolderDataset
from llbnad.data.names import content_path, shown_name, stored_name
from llbnad.data.sources import image_folder
from llbnad.evaluation.tile_names import short_names
from tests.conftest import save_image

CONTENT = "ab" * 32


@pytest.mark.parametrize(
    ("camera", "suffix", "shown"),
    [
        ("cam1/part_0001.PNG", ".png", "part_0001.png"),
        ("Teil 7 (ü).tiff", ".tif", "Teil_7_.tif"),
        ("a-b.c.jpg", ".jpg", "a-b.c.jpg"),
        ("x" * 300 + ".png", ".png", "x" * 120 + ".png"),
        ("odd \udcff.png", ".png", "odd_.png"),
    ],
)
def test_the_camera_s_name_is_stored_beside_the_content(camera, suffix, shown):
    stored = stored_name(CONTENT, camera, suffix)
    assert stored.startswith(CONTENT) and stored.isascii() and len(stored) < 240
    assert shown_name(f"data/raw/line/arrived/ab/{stored}") == shown
    assert content_path(f"ab/{stored}") == f"ab/{CONTENT}{suffix}"
    assert shown_name(f"ab/{stored}#2") == f"{shown}#2" and content_path(f"ab/{stored}#2") == f"ab/{CONTENT}{suffix}#2"


@pytest.mark.parametrize("path", ["a/b.png", f"ab/{CONTENT}.png", f"ab/{CONTENT}-.png", "x.tif#3"])
def test_other_names_are_shown_and_left_as_they_are(path):
    assert shown_name(path) == path.rpartition("/")[2] and content_path(path) == path
    (short,), _ = short_names([path])
    assert len(short) <= 28


@pytest.mark.parametrize(
    ("names", "short", "in_common"),
    [
        (["x.png", "good/y.png"], ["x.png", "y.png"], ""),  # short enough: as they are
        (["line_cam1_2026-03-02T10-00-00_part_0011_gain_3.png", "line_cam1_2026-03-02T10-00-00_part_0012_gain_3.png"],
         ["0011", "0012"],  # no number is split
         "all names begin with line_cam1_2026-03-02T10-00-00_part_ and end with _gain_3.png"),
        (["left_" + "a" * 40 + "_1.png", "right_" + "a" * 40 + "_2.png"],
         ["left_aaaaaaaa…aaaaaaaa_1.png", "right_aaaaaaa…aaaaaaaa_2.png"], ""),  # a suffix is not worth a line
        (["a" * 20 + "x" + "a" * 30 + "1" + "b" * 20, "a" * 20 + "y" + "a" * 30 + "2" + "b" * 20], None, None),
        (["b" * 30 + ".png", "b" * 30 + "_1.png"], None, None),
    ],
)  # fmt: skip
def test_names_that_are_shown_together_differ_where_images_do(names, short, in_common):
    found, said = short_names([*names, names[0]])
    assert found[0] == found[-1] and len(set(found)) == len(set(names))
    assert all(len(one) <= 28 and any(map(str.isalnum, one)) for one in found)
    if short is not None:
        assert (found[:-1], said) == (short, in_common)


def test_one_name_alone_is_cut_in_the_middle():
    (short,), said = short_names(["0001_" + "x" * 50 + "_left.png"])
    assert len(short) == 28 and short.startswith("0001_") and short.endswith("_left.png") and not said


def test_what_the_camera_called_an_image_decides_nothing(tmp_path):
    """Neither its sample, from which folds follow, nor whether it is a mask or has a label."""
    contents = [f"{number:064x}" for number in range(4)]
    names = ["mask_1.png", "0_mask.png", "0.png", "label.png"]
    for content, name in zip(contents, names, strict=True):
        save_image(tmp_path / "named" / "00" / stored_name(content, name, ".png"))
        save_image(tmp_path / "bare" / "00" / f"{content}.png")
    named, bare = (
        image_folder.records(ImageFolderDataset(root=str(tmp_path / one), category="line"), tmp_path / one)
        for one in ("named", "bare")
    )
    assert [one.sample_id for one in named.records] == [one.sample_id for one in bare.records]
    assert [shown_name(one.path) for one in named.records] == names
    assert {(one.anomaly_class, one.mask_path) for one in named.records} == {(None, None)}
