"""Names that people know images by: stored beside the content, shown alone, and without an effect on results."""

import pytest

from llbnad.config import ImageFolderDataset
from llbnad.data.names import content_path, short_name, shown_name, stored_name
from llbnad.data.sources import image_folder
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
    assert len(short_name(path)) <= 28


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
