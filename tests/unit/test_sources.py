"""Sources: every trap in Real-IAD's records, half-sorted folders, and bad files of every kind."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from llbnad.config import ElpvDataset, ImageFolderDataset, RealIadDataset
from llbnad.data.manifest import read_manifest, write_manifest
from llbnad.data.sources import read_source
from llbnad.errors import DataError
from llbnad.utils.files import write_csv
from tests.conftest import REPOSITORY, save_image

NUT = "plastic_nut"


def record(path, label, mask=None):
    return {"category": NUT, "anomaly_class": label, "image_path": path, "mask_path": mask}


@pytest.fixture
def real_iad(tmp_path):
    """A made category: two OK samples for training; an NG/AK sample with two views and NG/BX with the same number."""
    names = {
        "ok1": "OK/S0001/plastic_nut_0001_OK_C1_20231004.jpg",
        "ok2": "OK/S0002/plastic_nut_0002_OK_C1_20231004.jpg",
        "ak1": "NG/AK/S0001/plastic_nut_0001_NG_AK_C1_20231004.jpg",
        "ak3": "NG/AK/S0001/plastic_nut_0001_NG_AK_C3_20231004.jpg",
        "bx1": "NG/BX/S0001/plastic_nut_0001_NG_BX_C1_20231004.jpg",
    }
    folder = tmp_path / "realiad_1024" / NUT
    for seed, name in enumerate(names.values()):
        save_image(folder / name, seed)
    mask = names["ak1"].replace(".jpg", ".png")
    save_image(folder / mask, 99)
    content = {
        "meta": {"prefix": f"{NUT}/", "normal_class": "OK", "something_else": 1},
        "train": [record(names["ok1"], "OK"), record(names["ok2"], "OK")],
        "test": [
            record(names["ak1"], "AK", mask),
            record(names["ak3"], "OK"),
            record(names["bx1"], "BX", "None"),
        ],
    }
    (tmp_path / "realiad_jsons").mkdir()
    (tmp_path / "realiad_jsons" / f"{NUT}.json").write_text(json.dumps(content))
    return tmp_path, names, content


def read(root, **settings):
    return read_source(RealIadDataset(root=str(root), category=NUT, **settings), root)[0]


def test_label_is_the_record_s_not_the_path_s(real_iad):
    root, names, _ = real_iad
    labels = read(root).manifest.set_index("path")["anomaly_class"]
    assert labels[f"realiad_1024/{NUT}/{names['ak3']}"] == "OK"
    assert labels[f"realiad_1024/{NUT}/{names['ak1']}"] == "AK"


def test_string_none_is_no_mask(real_iad):
    root, names, _ = real_iad
    scan = read(root)
    masks = scan.manifest.set_index("path")["mask_path"]
    assert masks.notna().sum() == 1
    assert masks[f"realiad_1024/{NUT}/{names['ak1']}"].endswith(".png")
    assert scan.rejected.empty


def test_s_numbers_restart_per_folder_and_views_share_their_sample(real_iad):
    root, _, _ = real_iad
    manifest = read(root).manifest
    by_sample = manifest.groupby("sample_id")["view"].apply(lambda views: sorted(views)).to_dict()
    assert by_sample == {
        f"{NUT}/OK/S0001": ["C1"],
        f"{NUT}/OK/S0002": ["C1"],
        f"{NUT}/NG_AK/S0001": ["C1", "C3"],
        f"{NUT}/NG_BX/S0001": ["C1"],
    }
    assert manifest["split"].value_counts().to_dict() == {"train": 2, "test": 3}


def test_nested_json_and_image_folders_give_the_same_manifest_ids(real_iad):
    root, _, content = real_iad
    plain = read(root).manifest
    nested = root / "realiad_jsons" / "realiad_jsons_fuiad_0.1"
    nested.mkdir()
    (nested / f"{NUT}.json").write_text(json.dumps(content))
    assert read(root, variant="realiad_jsons_fuiad_0.1").manifest["image_id"].equals(plain["image_id"])
    (root / "realiad_256").mkdir()
    shutil.move(root / "realiad_1024", root / "realiad_256" / "realiad_256")
    assert read(root, image_dir="realiad_256").manifest["image_id"].equals(plain["image_id"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"variant": "realiad_jsons_sv"}, "no JSON of category"), ({"image_dir": "realiad_512"}, "no images at")],
)
def test_what_is_missing_is_named(real_iad, settings, message):
    with pytest.raises(DataError, match=message):
        read(real_iad[0], **settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not valid JSON"), ('{"meta": {}}', "lacks 'prefix'"), ("[]", "lacks")],
)
def test_wrong_json_is_named(real_iad, text, message):
    root = real_iad[0]
    (root / "realiad_jsons" / f"{NUT}.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read(root)


@pytest.mark.parametrize(("key", "value"), [("image_path", None), ("image_path", "S0001/a.jpg"), ("mask_path", 0)])
def test_record_with_an_impossible_path_is_named(real_iad, key, value):
    root, _, content = real_iad
    content["test"][0][key] = value
    (root / "realiad_jsons" / f"{NUT}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{NUT}.json: {key} (of \S+ )?(is )?{value!r}"):
        read(root)


def test_record_without_a_key_is_named(real_iad):
    root, _, content = real_iad
    del content["test"][0]["anomaly_class"]
    (root / "realiad_jsons" / f"{NUT}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="lacks \\['anomaly_class'\\]"):
        read(root)


def test_official_layout_on_real_images(magnetic_tile):
    scan, root = read_source(RealIadDataset(root=str(magnetic_tile), category="magnetic_tile"), magnetic_tile)
    manifest = scan.manifest
    assert len(manifest) + len(scan.rejected) == 665 + 287 + 388
    assert (manifest["split"] == "train").sum() + (scan.rejected["reason"] == "duplicate").sum() >= 665
    assert manifest["mask_path"].notna().equals(manifest["anomaly_class"] != "OK")
    assert all((root / path).is_file() for path in manifest["path"])


def test_elpv_leaves_uncertain_cells_out_with_the_reason():
    scan, _ = read_source(ElpvDataset(category="mono"), None)
    assert scan.manifest["anomaly_class"].value_counts().to_dict() == {"OK": 588, "defect": 313}
    assert set(scan.rejected["reason"]) == {"uncertain"}
    assert len(scan.manifest) + len(scan.rejected) == 1074
    assert scan.folders.values.tolist() == [["label OK", 588, "normal"], ["label defect", 313, "defects"]]


def folder_scan(root):
    return read_source(ImageFolderDataset(root=str(root), category="c"), root)[0]


def test_folder_names_label_and_split(tmp_path):
    places = ["x.png", "Good/a.png", "bad/b.png", "bad/crack/c.png", "train/good/d.png", "test/hole/e.png", "odd/f.png"]
    for seed, place in enumerate(places):
        save_image(tmp_path / place, seed)
    manifest = folder_scan(tmp_path).manifest.set_index("path")
    labels = {path: label if isinstance(label, str) else None for path, label in manifest["anomaly_class"].items()}
    assert labels == {
        "x.png": None,
        "Good/a.png": "OK",
        "bad/b.png": "defect",
        "bad/crack/c.png": "crack",
        "train/good/d.png": "OK",
        "test/hole/e.png": "hole",
        "odd/f.png": None,
    }
    assert manifest["split"].dropna().to_dict() == {"train/good/d.png": "train", "test/hole/e.png": "test"}


@pytest.mark.parametrize("mask", ["bad/a_mask.png", "masks/bad/a.png", "ground_truth/bad/a_mask.png"])
def test_mask_beside_or_in_a_parallel_folder(tmp_path, mask):
    save_image(tmp_path / "bad/a.png", 1)
    save_image(tmp_path / "good/a.png", 2)
    save_image(tmp_path / mask, 3)
    manifest = folder_scan(tmp_path).manifest
    assert manifest.set_index("path")["mask_path"].dropna().to_dict() == {"bad/a.png": mask}
    assert len(manifest) == 2


def test_a_mask_whose_path_names_a_split_is_of_that_split(tmp_path):
    for seed, place in enumerate(["train/bad/0.png", "test/bad/0.png"]):
        save_image(tmp_path / place, seed)
        save_image(tmp_path / "ground_truth" / place, seed + 2)
    manifest = folder_scan(tmp_path).manifest.set_index("path")
    assert manifest["mask_path"].to_dict() == {
        "train/bad/0.png": "ground_truth/train/bad/0.png",
        "test/bad/0.png": "ground_truth/test/bad/0.png",
    }


def test_mvtec_layout(tmp_path):
    for seed, place in enumerate(
        ["train/good/0.png", "test/good/0.png", "test/cut/0.png", "ground_truth/cut/0_mask.png"]
    ):
        save_image(tmp_path / place, seed)
    manifest = folder_scan(tmp_path).manifest.set_index("path")
    assert manifest["mask_path"].dropna().to_dict() == {"test/cut/0.png": "ground_truth/cut/0_mask.png"}
    assert manifest["anomaly_class"].to_dict() == {
        "train/good/0.png": "OK",
        "test/good/0.png": "OK",
        "test/cut/0.png": "cut",
    }


def test_bad_files_are_listed_with_the_reason_and_stay_on_disk(tmp_path):
    good = save_image(tmp_path / "good" / "a.png")
    shutil.copy(good, tmp_path / "good" / "b.png")
    (tmp_path / "bad").mkdir()
    shutil.copy(good, tmp_path / "bad" / "c.png")
    (tmp_path / "good" / "zero.png").touch()
    (tmp_path / "good" / "text.jpg").write_text("hello")
    (tmp_path / "good" / "cut.png").write_bytes(good.read_bytes()[:300])
    (tmp_path / "good" / "notes.txt").write_text("no image by its name")
    before = sorted(tmp_path.rglob("*"))
    scan = folder_scan(tmp_path)
    # the first path keeps the image; a double with another label is pointed out
    assert scan.manifest["path"].tolist() == ["bad/c.png"]
    assert dict(zip(scan.rejected["path"], scan.rejected["reason"], strict=True)) == {
        "good/a.png": "duplicate",
        "good/b.png": "duplicate",
        "good/cut.png": "unreadable",
        "good/notes.txt": "other_file",
        "good/text.jpg": "unreadable",
        "good/zero.png": "unreadable",
    }
    assert scan.rejected["detail"].str.contains("labelled defect, not OK").sum() == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_odd_names_and_links_never_stop_a_scan(tmp_path):
    save_image(tmp_path / "good" / "a.png")
    folder = tmp_path / "good"
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "nowhere.png").symlink_to("gone.png")
    (folder / "link.png").symlink_to(save_image(tmp_path / "elsewhere.bin.png", 1))
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    (folder / "up").symlink_to("..")
    odd = ["new\nline.png", 'comma, "quote".png', "-dash.png", "n" * 251 + ".png", "ä 空.PNG"]
    for seed, name in enumerate(odd):
        shutil.copy(save_image(tmp_path / ".hidden.png", seed + 2), folder / name)
    latin = os.fsencode(folder) + b"/caf\xe9.png"
    shutil.copy(save_image(tmp_path / ".hidden.png", 9), os.fsdecode(latin))
    scan = folder_scan(tmp_path)
    kept = {*(f"good/{name}" for name in odd), "good/a.png", "elsewhere.bin.png"}
    assert set(scan.manifest["path"]) == kept
    assert dict(zip(scan.rejected["path"], scan.rejected["reason"], strict=True)) == {
        "good/caf\\udce9.png": "unreadable",
        ".hidden.png": "hidden",
        "good/circle.png": "unreadable",
        "good/folder.png": "folder",
        "good/link.png": "duplicate",
        "good/nowhere.png": "missing",
        "good/pipe.png": "special_file",
        "good/up": "linked_folder",
    }
    # the tables can be written, and a file be written under a name of full length
    write_csv(scan.rejected, tmp_path / "rejected.csv")
    write_manifest(scan.manifest, tmp_path / ("m" * 247 + ".parquet"))
    assert set(read_manifest(tmp_path / ("m" * 247 + ".parquet"))["path"]) == kept


READ_AS_NOBODY = """
import os, sys
from pathlib import Path
from PIL import Image
from llbnad.config import ImageFolderDataset
from llbnad.data.sources import read_source
Image.init()  # what it would import later, it may not be allowed to read then
os.chdir(sys.argv[1])
if os.getuid() == 0:  # root may read everything
    os.seteuid(65534)
scan = read_source(ImageFolderDataset(root=".", category="c"), Path("."))[0]
print(list(scan.manifest["path"]), dict(zip(scan.rejected["path"], scan.rejected["reason"])))
"""


def test_what_may_not_be_read_is_listed(tmp_path):
    root = tmp_path / "images"
    for seed, name in enumerate(("a.png", "file.png", "nolist/b.png", "nosearch/c.png")):
        save_image(root / name, seed)
    if os.getuid() == 0:
        for path in [root, *root.rglob("*")]:
            os.chown(path, 65534, 65534)
    for name, mode in (("file.png", 0o000), ("nolist", 0o300), ("nosearch", 0o400)):
        (root / name).chmod(mode)
    command = [sys.executable, "-c", READ_AS_NOBODY, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    for name in ("nolist", "nosearch"):  # pytest wants to remove them
        (root / name).chmod(0o700)
    unreadable = {"file.png": "unreadable", "nolist": "unreadable", "nosearch/c.png": "unreadable"}
    assert done.stdout.strip() == f"['a.png'] {unreadable}", done.stderr


def rewritten(root, content, encoding="utf-8"):
    (root / "realiad_jsons" / f"{NUT}.json").write_bytes(json.dumps(content, indent=1).encode(encoding))


def test_a_json_that_a_windows_tool_wrote_is_read(real_iad):
    root, _, content = real_iad
    expected = read(root).manifest
    for entry in [*content["train"], *content["test"]]:
        for key in ("image_path", "mask_path"):
            entry[key] = entry[key] and entry[key].replace("/", "\\")
    rewritten(root, content, "utf-8-sig")
    assert read(root).manifest.equals(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_path", "../../elsewhere/S0001/a.jpg", "expected a path inside the image folder"),
        ("image_path", "/etc/S0001/a.jpg", "expected a path inside the image folder"),
        ("image_path", "C:\\OK\\S0001\\a.jpg", "expected a path inside the image folder"),
        ("mask_path", "NG/../../../../secret.png", "expected a path inside the image folder"),
        ("image_path", 3, "image_path is 3; expected a text"),
        ("category", ["a"], "category is .* expected a text"),
        ("anomaly_class", None, "anomaly_class of .* is None; expected a text"),
        ("mask_path", 3, "mask_path of .* is 3; expected a text"),
    ],
)
def test_a_record_of_another_kind_or_place_is_named(real_iad, key, value, message):
    root, _, content = real_iad
    content["train"][0][key] = value
    rewritten(root, content)
    with pytest.raises(DataError, match=message):
        read(root)


def test_listed_but_missing_image_and_mask(real_iad):
    root, names, _ = real_iad
    folder = root / "realiad_1024" / NUT
    (folder / names["ok2"]).unlink()
    (folder / names["ak1"].replace(".jpg", ".png")).unlink()
    scan = read(root)
    assert sorted(scan.rejected["reason"]) == ["mask_missing", "missing"]
    assert len(scan.manifest) == 4
    assert scan.manifest["mask_path"].isna().all()


def test_empty_folder_and_no_folder(tmp_path):
    with pytest.raises(DataError, match=r"no image below .* there is nothing"):
        folder_scan(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        folder_scan(tmp_path / "nowhere")
