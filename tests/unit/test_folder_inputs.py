"""Folders as cameras, public data sets and people leave them: what is trained on, and what is said of the rest."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from llbnad.config import ImageFolderDataset
from llbnad.data.drawn import load_mask, looks_like_mask
from llbnad.data.images import load_rgb
from llbnad.data.masks import marked, split_masks
from llbnad.data.sources import image_folder, read_source
from llbnad.errors import DataError

NUMBERS = range(4)


def photo(seed):
    y, x = np.mgrid[:64, :64]
    noise = np.random.default_rng(seed).normal(0, 3, x.shape)
    return Image.fromarray((120 + 60 * np.cos(np.hypot(x - 32, y - 32) / 9) + noise).clip(0, 255).astype(np.uint8))


def mask(seed=0):
    drawn = np.zeros((64, 64), np.uint8)
    drawn[8 + seed : 20 + seed, 10:30] = 255
    return Image.fromarray(drawn)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def scan(root):
    return read_source(ImageFolderDataset(root=str(root), category="c"), root)[0]


def reasons(found):
    return dict(zip(found.rejected["path"], found.rejected["reason"], strict=True))


CONVENTIONS = {  # places of image and mask, as public sets have them; number → path
    "KSDD2": ("train/{}.png", "train/{}_GT.png"),
    "KolektorSDD": ("kos{}/Part0.jpg", "kos{}/Part0_label.bmp"),
    "another suffix": ("MT_Blowhole/Imgs/exp{}.jpg", "MT_Blowhole/Imgs/exp{}.png"),
    "mask/": ("crack/{}.jpg", "mask/crack/{}.png"),
    "mask/ of JPEG": ("crack/{}.jpg", "mask/crack/{}.jpg"),
    "labels/": ("images/{}.jpg", "labels/{}.png"),
    "gt/ in a split": ("test/crack/{}.png", "test/gt/crack/{}.png"),
    "VOC": ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    "MVTec": ("test/crack/{}.png", "ground_truth/crack/{}_mask.png"),
    "BTAD": ("test/ko/{}.bmp", "ground_truth/ko/{}.png"),
    "DAGM": ("Train/{}.PNG", "Train/Label/{}_label.PNG"),
    "Severstal": ("train_images/{}.jpg", "train_masks/{}.png"),
    "img_ and mask_": ("images/img_{}.png", "masks/mask_{}.png"),
    "image_ and label_": ("image_{}.png", "label_{}.png"),
    "a folder of masks for each of images": ("bad/{}.png", "bad_mask/{}.png"),
    "ROI": ("images/{}.png", "roi/{}.png"),
    "German": ("images/{}.png", "Masken/{}.png"),
    "gt_ before the name": ("bad/{}.png", "bad/gt_{}.png"),
    "annotations of instances": ("a/{}.jpg", "a_masks/{}_0.png"),
    "upper case": ("a/{}.JPG", "a/{}_MASK.PNG"),
}


@pytest.mark.parametrize(("image", "drawn"), CONVENTIONS.values(), ids=CONVENTIONS)
def test_a_mask_is_never_an_image_and_finds_its_own(tmp_path, image, drawn):
    for number in NUMBERS:
        save(tmp_path / image.format(number), photo(number))
        save(tmp_path / drawn.format(number), mask(number))
    found = scan(tmp_path)
    expected = {image.format(number): drawn.format(number) for number in NUMBERS}
    assert found.manifest.set_index("path")["mask_path"].to_dict() == expected
    assert found.rejected.empty


def test_masks_that_fit_no_image_are_listed(tmp_path):
    for number in NUMBERS:
        save(tmp_path / f"{number}.png", photo(number))
    save(tmp_path / "masks" / "other.png", mask())
    save(tmp_path / "drawn.png", mask(1))  # nobody named it a mask: its content does
    found = scan(tmp_path)
    assert sorted(found.manifest["path"]) == [f"{number}.png" for number in NUMBERS]
    assert reasons(found) == {"masks/other.png": "mask_without_image", "drawn.png": "two_valued"}


def test_a_folder_called_label_may_hold_photos(tmp_path):
    """Labels are products as well. Only drawn files make such a folder one of masks; two-valued cameras exist too."""
    for number in NUMBERS:
        save(tmp_path / "label" / f"{number}.png", photo(number))
    assert len(scan(tmp_path).manifest) == len(NUMBERS)
    for number in NUMBERS:
        save(tmp_path / "binary" / f"{number}.png", mask(number))
    assert len(scan(tmp_path / "binary").manifest) == len(NUMBERS)


@pytest.mark.parametrize("below", [("train/good", "test/broken"), ("good", "bad"), ("OK", "NOK")])
def test_a_root_one_level_too_high_is_an_error_that_names_the_candidates(tmp_path, below):
    for product in ("bottle", "screw"):
        for seed, folder in enumerate(below):
            save(tmp_path / product / folder / "0.png", photo(seed))
    with pytest.raises(
        DataError, match=r"2 folders with splits or labels of their own: bottle/ .*screw/ .*as the root"
    ):
        scan(tmp_path)
    assert len(scan(tmp_path / "bottle").manifest) == 2


def test_every_top_folder_s_meaning_is_said(tmp_path):
    folders = {"OK": 3, "NOK": 2, "n.i.O": 1, "reject": 1, "validation": 2, "camera_2": 1, "@eaDir": 1}
    for seed, (folder, count) in enumerate(folders.items()):
        for number in range(count):
            save(tmp_path / folder / f"{number}.png", photo(100 * seed + number))
    (tmp_path / "OK" / "Thumbs.db").write_text("x")
    found = scan(tmp_path)
    assert list(found.notes) == [
        "folder NOK/: 2 images, defects",
        "folder OK/: 3 images, normal",
        "folder camera_2/: 1 images, unlabelled",
        "folder n.i.O/: 1 images, defects",
        "folder reject/: 1 images, defects",
        "folder validation/: 2 images, held out",
    ]
    assert found.folders.values.tolist() == [
        ["NOK/", 2, "defects"],
        ["OK/", 3, "normal"],
        ["camera_2/", 1, "unlabelled"],
        ["n.i.O/", 1, "defects"],
        ["reject/", 1, "defects"],
        ["validation/", 2, "held out"],
    ]
    assert reasons(found) == {
        "@eaDir/0.png": "system_folder",
        "OK/Thumbs.db": "other_file",
        "validation/0.png": "held_out",
        "validation/1.png": "held_out",
    }


def test_linked_folders_are_listed_and_a_root_of_links_says_so(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "store" / f"{number}.png", photo(number))
        save(tmp_path / "root" / "good" / f"{number}.png", photo(10 + number))
    (tmp_path / "root" / "bad").symlink_to(tmp_path / "store")
    (tmp_path / "root" / "good" / "loop").symlink_to(tmp_path / "root")
    assert reasons(scan(tmp_path / "root")) == {"bad": "linked_folder", "good/loop": "linked_folder"}
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "good").symlink_to(tmp_path / "store")
    with pytest.raises(DataError, match=r"1 linked_folder \(a link to a folder is not followed\)"):
        scan(tmp_path / "links")


def test_constant_and_equal_pictures_are_no_further_images(tmp_path):
    """A lens cap, and one frame written again and again with another time in it, or in another format."""
    for number in NUMBERS:
        text = PngInfo()
        text.add_text("time", str(number))
        save(tmp_path / "train" / f"frozen{number}.png", photo(0), pnginfo=text)
        save(tmp_path / "train" / f"{number}.png", photo(10 + number))
        save(tmp_path / "train" / f"black{number}.png", Image.new("L", (64, 64 + number)))
    save(tmp_path / "test" / "0.bmp", photo(10))
    found = scan(tmp_path)
    assert sorted(found.manifest["path"]) == ["test/0.bmp", *(f"train/{n}.png" for n in (1, 2, 3)), "train/frozen0.png"]
    told = reasons(found)
    assert {told[f"train/black{number}.png"] for number in NUMBERS} == {"constant"}
    assert {told[f"train/frozen{number}.png"] for number in (1, 2, 3)} == {"duplicate"}
    leak = found.rejected.set_index("path")["detail"]["train/0.png"]
    assert leak == "same pixels as test/0.bmp, which is in test, not in train"
    for path in (tmp_path / "train").iterdir():
        if not path.name.startswith("black"):
            path.unlink()
    shutil.rmtree(tmp_path / "test")
    with pytest.raises(DataError, match="all of its pixels have one value"):
        scan(tmp_path)


def test_an_alpha_channel_that_is_0_everywhere_is_none(tmp_path):
    grey = np.asarray(photo(0))
    for alpha, shown in ((0, grey), (255, grey)):
        pixels = np.dstack([grey, grey, grey, np.full_like(grey, alpha)])
        Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
        assert np.array_equal(np.asarray(load_rgb(tmp_path / "a.png"))[..., 0], shown)


def test_a_dark_photo_is_no_mask_and_a_16_bit_one_neither(tmp_path):
    dark = np.asarray(photo(0)) // 30  # a dark field with one bright spot
    dark[30:34, 30:34] = 200
    for name, image in {
        "photo.png": photo(0),
        "dark.png": Image.fromarray(dark),
        "deep.png": Image.fromarray(np.asarray(photo(0)).astype(np.uint16) * 257),
    }.items():
        image.save(tmp_path / name)
        assert looks_like_mask(tmp_path / name) is False
    for name, image in {
        "a.png": mask(),
        "b.jpg": mask(),
        "c.png": mask().convert("P"),
        "d.png": mask().point(bool),
    }.items():
        image.save(tmp_path / name)
        assert looks_like_mask(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    assert looks_like_mask(tmp_path / "text.png") is None


def test_masks_of_every_kind_show_the_same_defect(tmp_path):
    drawn = np.zeros((64, 64), bool)
    drawn[10:30, 20:50] = True
    grey = (drawn * 255).astype(np.uint8)
    none = grey * 0
    white_first = Image.fromarray(np.where(drawn, 0, 1).astype(np.uint8), "P")
    white_first.putpalette([255, 255, 255, 0, 0, 0])
    kinds = {
        "reference.png": Image.fromarray(grey),
        "ones.png": Image.fromarray(drawn.astype(np.uint8)),
        "bits.png": Image.fromarray(drawn),
        "deep.tif": Image.fromarray(drawn.astype(np.uint16) * 65535),
        "palette.png": white_first,
        "quantised.png": Image.fromarray(np.dstack([grey] * 3)).quantize(2),
        "red.png": Image.fromarray(np.dstack([grey, none, none])),
        "black_paint.png": Image.fromarray(np.dstack([none, none, none, grey]), "RGBA"),
        "red_everywhere.png": Image.fromarray(np.dstack([none + 255, none, none, grey]), "RGBA"),
        "white_everywhere.png": Image.fromarray(np.dstack([none + 255, grey]), "LA"),
        "opaque.png": Image.fromarray(np.dstack([grey, grey, grey, none + 255]), "RGBA"),
        "ringing.jpg": Image.fromarray(grey),
    }
    for name, image in kinds.items():
        image.save(tmp_path / name, quality=40)
        found = load_mask(tmp_path / name, (64, 64))
        assert (found & drawn).sum() / (found | drawn).sum() > 0.97, name


def test_a_mask_of_another_shape_is_listed_and_not_squeezed(tmp_path):
    wide = Image.fromarray(np.hstack([np.asarray(photo(1)), np.asarray(photo(2))]))
    orientation = Image.Exif()
    orientation[0x0112] = 6
    save(tmp_path / "bad" / "turned.jpg", wide, exif=orientation, quality=95)
    save(tmp_path / "ground_truth" / "bad" / "turned_mask.png", Image.new("L", (96, 64), 255))
    save(tmp_path / "bad" / "small.png", photo(3))
    save(tmp_path / "ground_truth" / "bad" / "small_mask.png", mask().resize((32, 32)))  # another size is none
    found = scan(tmp_path)
    masks = found.manifest.set_index("path")["mask_path"]
    assert masks.dropna().to_dict() == {"bad/small.png": "ground_truth/bad/small_mask.png"}
    assert reasons(found) == {"ground_truth/bad/turned_mask.png": "mask_shape"}
    assert "96 × 64, and its image is seen as 64 × 128" in found.rejected["detail"].item()


STORED = np.zeros((64, 96), bool)  # what a camera stores: the defect lies near one corner
STORED[5:20, 10:40] = True


def turned(image, orientation):
    image.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(image)


def drawn_on(kind, orientation):
    """Return a mask drawn on the stored image, on the image as it is seen, or stored and turned as the image is."""
    image = Image.fromarray(STORED.astype(np.uint8) * 255)
    exif = Image.Exif()
    if kind == "stored, tagged":
        exif[0x0112] = orientation
    return (turned(image, orientation) if kind == "seen" else image), exif


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["stored", "seen", "stored, tagged"])
def test_a_mask_is_turned_as_its_image_is(tmp_path, kind, orientation, suffix):
    rng, exif = np.random.default_rng(orientation), Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "bad" / "0.png", Image.fromarray(rng.integers(0, 255, (64, 96), dtype=np.uint8)), exif=exif)
    image, own = drawn_on(kind, orientation)
    save(tmp_path / "masks" / "bad" / f"0.{suffix}", image, exif=own)
    found = scan(tmp_path)
    (row,) = found.manifest.to_dict("records")
    if orientation in (2, 3, 4) and kind != "stored, tagged":  # the shape is the same either way: nobody can know
        assert reasons(found) == {f"masks/bad/0.{suffix}": "mask_shape"} and row["mask_path"] is None
        assert f"EXIF orientation {orientation}" in found.rejected["detail"].item()
        return
    assert found.rejected.empty
    seen = np.asarray(drawn_on("seen", orientation)[0]) > 0
    assert np.array_equal(marked(row, tmp_path, (row["width"], row["height"])), seen)


ROUND = {  # masks that belong to bad/7.png, and that do not
    "MVTec LOCO": (["ground_truth/bad/7/000.png", "ground_truth/bad/7/001.png"], []),
    "numbered names": (["masks/bad/7_0.png", "masks/bad/7_1.png"], []),
    "numbered masks": (["masks/bad/7_mask.png", "masks/bad/7_mask_1.png", "masks/bad/7_1_mask.png"], []),
    "copies": (["masks/bad/7 (1).png", "masks/bad/7 (2).png"], []),
    "the image's whole name": (["masks_machine/bad/7.png.png", "masks_machine/bad/7.jpg.png"], []),
    "a folder per image, named by it": (["masks/bad/7.png/a.png", "masks/bad/7.png/b.png"], []),
    "beside": (["bad/7_mask.png", "bad/7_mask_2.png", "bad/7.png.mask.png", "bad/7-GT.bmp"], []),
    "before the name": (["bad/mask_7.png", "bad/GT_7.png"], []),
    "another suffix and a folder": (["bad/7.bmp", "Ground Truth/bad/7.png"], []),
    "flat": (["Mask_images/7_mask.png", "annotations/7_2.png"], []),
    "Label Studio names the task": ([], ["masks/task-7-annotation-1-by-1-tag-scratch-0.png"]),
    "Label Studio, image named by the task": (["masks/bad/7-annotation-1-by-1-tag-x-0.png"], []),
    "of no image": (["masks/bad/7.png"], ["masks/bad/8.png", "masks/bad/8/0.png", "ground_truth/7x.png"]),
    "of two images": ([], ["masks/0.png"]),
    "a name with the separator": ([], ["masks/bad/7|1.png"]),
}


@pytest.mark.parametrize(("fitting", "others"), ROUND.values(), ids=ROUND)
def test_all_masks_of_an_image_are_joined_and_the_others_are_listed(tmp_path, fitting, others):
    for seed, place in enumerate(["bad/7.png", "good/0.png", "bad/0.png", "good/1.png"]):
        save(tmp_path / place, photo(seed))
    united = np.zeros((64, 64), bool)
    for number, place in enumerate([*fitting, *others]):
        save(tmp_path / place, mask(4 * number))
        united |= np.asarray(mask(4 * number)) > 0 if place in fitting else False
    found = scan(tmp_path)
    assert len(found.manifest) == 4
    row = found.manifest.set_index("path").loc["bad/7.png"]
    assert split_masks(row["mask_path"]) == sorted(fitting)
    assert reasons(found) == dict.fromkeys(others, "mask_without_image")
    assert np.array_equal(marked({**row, "path": "bad/7.png"}, tmp_path, (64, 64)), united)


@pytest.mark.parametrize(
    "places",
    [
        ("{}/images/{}.png", "{}/masks/a1.png", "{}/masks/b2.png"),
        ("{}/image.png", "{}/mask.png", "{}/mask_1.png"),
        ("{}_json/img.png", "{}_json/label.png", "{}_json/GT.bmp"),
    ],
)
def test_a_folder_per_image_holds_its_masks(tmp_path, places):
    image, *drawn = (place.format(*["part{0}"] * place.count("{}")) for place in places)
    for number in NUMBERS:
        save(tmp_path / image.format(number), photo(number))
        for seed, place in enumerate(drawn):
            save(tmp_path / place.format(number), mask(seed))
    found = scan(tmp_path)
    expected = {image.format(n): "|".join(sorted(place.format(n) for place in drawn)) for n in NUMBERS}
    assert found.manifest.set_index("path")["mask_path"].to_dict() == expected
    assert found.rejected.empty


def test_masks_of_what_is_left_out_and_of_a_defect_in_part_are_listed(tmp_path):
    for name in ("0.png", "1.png", "2.png"):
        save(tmp_path / "bad" / name, photo(0 if name == "1.png" else int(name[0])))
        save(tmp_path / "masks" / "bad" / name.replace(".", "_0."), mask())
    (tmp_path / "masks" / "bad" / "2_1.png").write_bytes(b"broken")
    save(tmp_path / "validation" / "9.png", photo(9))
    save(tmp_path / "validation" / "9_mask.png", mask())
    found = scan(tmp_path)
    assert found.manifest.set_index("path")["mask_path"].dropna().to_dict() == {"bad/0.png": "masks/bad/0_0.png"}
    assert reasons(found) == {
        "bad/1.png": "duplicate",
        "masks/bad/1_0.png": "mask_without_image",
        "masks/bad/2_0.png": "mask_unused",
        "masks/bad/2_1.png": "mask_unreadable",
        "validation/9.png": "held_out",
        "validation/9_mask.png": "held_out",
    }


FOLDERS = {  # folder → what is said of the one image in it
    "KO": "defects", "Fail": "defects", "n.i.O.": "defects", "N.i.O": "defects", "NOT OK": "defects",
    "not_good": "defects", "REJECTED": "defects", "Ausschuss": "defects", "i.O.": "normal", "o.k.": "normal",
    "良品": "normal", "不良品": "defects", "Undamaged": "normal", "non conforme": "defects",
    "Gut": "normal", "defect-free": "normal", "No_Defects": "normal", "ok_front": "unlabelled", "okra": "unlabelled",
    "line 3": "unlabelled", "train/good": "train, normal", "Training/OK": "train, normal",
    "train/ok_front": "train, normal", "train/def_front": "train, defects", "train/camera": "train, unlabelled",
    "test/ok_front": "test, normal", "test/def_front": "test, defects", "test/not_ok_front": "test, defects",
    "TEST_PUBLIC/bad": "test, defects", "test_private": "held out", "Validation": "held out", "val": "held out",
    "valid/ok": "held out", "images/val": "held out", "images/test/good": "test, normal",
}  # fmt: skip


def test_the_meaning_of_every_folder_is_said(tmp_path):
    for seed, folder in enumerate(FOLDERS):
        save(tmp_path / folder / "0.png", photo(seed))
    listing = image_folder.records(ImageFolderDataset(root=str(tmp_path), category="c"), tmp_path)
    said = {}
    for note in listing.notes:
        places, _, meaning = note.removeprefix("folders ").partition(": ")
        said |= dict.fromkeys(places.split(", "), meaning.partition("images, ")[2])
    expected = {folder if meaning != "held out" else folder.removesuffix("/ok") for folder, meaning in FOLDERS.items()}
    assert said == {f"{place}/": FOLDERS.get(place, "held out") for place in expected}
    labels = {record.path: (record.anomaly_class, record.split) for record in listing.records}
    assert labels["test/not_ok_front/0.png"] == ("not_ok_front", "test")
    assert labels["train/camera/0.png"] == (None, "train")


def test_what_is_no_image_is_listed_whatever_it_is(tmp_path):
    save(tmp_path / "a.png", photo(0))
    names = {
        "Thumbs.db": "other_file", "desktop.ini": "other_file", "readme": "other_file", "x.heic": "other_file",
        ".DS_Store": "hidden", "._a.png": "hidden", "sub/.a.png": "hidden", "__MACOSX/._a.png": "system_folder",
        "@eaDir/a.png/x.jpg": "system_folder", "#recycle/b.png": "system_folder", "thumbnails/a.png": "system_folder",
        "@Recycle/c.png": "system_folder", "FOUND.000/d.png": "system_folder",
        "#snapshot/day/e.png": "system_folder",
        "x_json/label_viz.png": "overlay", "masks_human/a.png": "overlay", "masks/M\xfcller.png": "mask_without_image",
    }  # fmt: skip
    for name in [*names, ".thumbs/a.png", ".thumbs/deep/b.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "x.png").mkdir()
    (tmp_path / "y.png").mkdir()
    save(tmp_path / "y.png" / "b.png", photo(1))
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "circle.bmp").symlink_to("circle.bmp")
    os.mkfifo(tmp_path / "pipe.txt")
    found = scan(tmp_path)
    assert sorted(found.manifest["path"]) == ["a.png", "y.png/b.png"]
    own = {".thumbs": "hidden", "x.png": "folder", "gone.png": "missing", "circle.bmp": "unreadable",
           "pipe.txt": "special_file"}  # fmt: skip
    assert reasons(found) == names | own


def test_a_root_two_levels_too_high_names_the_candidates_and_no_image_says_what_is_there(tmp_path):
    save(tmp_path / "sets" / "mvtec" / "bottle" / "train" / "good" / "0.png", photo(0))
    save(tmp_path / "sets" / "loose.png", photo(1))
    with pytest.raises(DataError, match=r"1 folder with splits or labels of their own: mvtec/bottle/ \(train/ …\)"):
        scan(tmp_path / "sets")
    save(tmp_path / "held" / "validation" / "good" / "0.png", photo(0))
    save(tmp_path / "held" / "masks" / "9.png", mask())
    with pytest.raises(DataError, match=r"1 held_out \(images of validation/ .*; 1 mask_without_image"):
        scan(tmp_path / "held")


def paths(root):
    return sorted(scan(root).manifest["path"])


def test_names_that_are_not_utf_8_stop_nothing(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "good" / f"{number}.png", photo(number))
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn")
    save(Path(latin) / "a.png", photo(9))
    (Path(latin) / os.fsdecode(b"M\xfcller.txt")).write_text("x")
    found = scan(tmp_path)
    assert reasons(found) == {"gr\\udcfcn/M\\udcfcller.txt": "other_file", "gr\\udcfcn/a.png": "unreadable"}
    "\n".join([*found.notes, *found.rejected["detail"]]).encode()


def test_a_folder_of_images_says_nothing_of_a_label(tmp_path):
    places = ["train/images/good/0.png", "test/images/good/1.png", "test/images/cut/2.png"]
    for seed, place in enumerate(places):
        save(tmp_path / place, photo(seed))
    save(tmp_path / "test/masks/cut/2.png", mask())
    manifest = scan(tmp_path).manifest.set_index("path")
    assert manifest["anomaly_class"].to_dict() == dict(zip(places, ["OK", "OK", "cut"], strict=True))
    assert manifest["mask_path"].dropna().to_dict() == {places[2]: "test/masks/cut/2.png"}
    for seed, place in enumerate(("images/good/0.png", "images/bad/1.png")):
        save(tmp_path / "flat" / place, photo(seed))
    save(tmp_path / "flat" / "masks" / "bad" / "1.png", mask())
    assert scan(tmp_path / "flat").manifest["mask_path"].dropna().tolist() == ["masks/bad/1.png"]


def test_photos_of_labels_are_images_and_every_mask_is_none(tmp_path):
    names = ["001.png", "001_label.png", "002.png", "002_gt.png"]
    for seed, name in enumerate(names):
        save(tmp_path / "photos" / name, photo(seed))
    assert paths(tmp_path / "photos") == names
    for seed, name in enumerate(("1.png", "2.png")):
        save(tmp_path / "masks_too" / name, photo(seed))
    drawn = ["1_gt.jpg", "1_mask.jpg", "2_mask.jpg", "2_mask.png", "3_mask.jpg"]  # several of one image are joined
    for seed, name in enumerate(drawn):
        save(tmp_path / "masks_too" / name, mask(seed))
    found = scan(tmp_path / "masks_too")
    assert found.manifest.set_index("path")["mask_path"].to_dict() == {
        "1.png": "1_gt.jpg|1_mask.jpg",
        "2.png": "2_mask.jpg|2_mask.png",
    }
    assert reasons(found) == {"3_mask.jpg": "mask_without_image"}


def test_masks_of_normal_images_and_names_that_end_as_masks_do(tmp_path):
    save(tmp_path / "good" / "0.png", photo(0))
    save(tmp_path / "good" / "0_mask.png", mask())
    save(tmp_path / "test" / "torn" / "001_label.png", photo(1))
    save(tmp_path / "ground_truth" / "torn" / "001_label.png", mask(1))
    found = scan(tmp_path)
    assert found.manifest.set_index("path")["mask_path"].dropna().to_dict() == {
        "test/torn/001_label.png": "ground_truth/torn/001_label.png"
    }
    assert found.rejected["detail"].tolist() == ["its image is normal and has no defect to draw"]


def test_one_unreadable_file_does_not_make_a_folder_of_masks_one_of_images(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "test" / "a" / f"{number}.png", photo(number))
        save(tmp_path / "gt" / "a" / f"{number}.jpg", mask(number))
    (tmp_path / "gt" / "a" / "0.jpg").write_bytes(b"")
    assert paths(tmp_path) == [f"test/a/{number}.png" for number in NUMBERS]


def test_valid_alone_is_no_validation_set_and_a_binary_camera_keeps_its_images(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "valid" / f"{number}.png", photo(number))
        save(tmp_path / "binary" / f"{number}.png", mask(number))
    assert len(paths(tmp_path / "valid")) == len(scan(tmp_path / "binary").manifest) == len(NUMBERS)
    save(tmp_path / "binary" / "grey.png", photo(9))
    assert len(paths(tmp_path / "binary")) == len(NUMBERS) + 1
    shutil.rmtree(tmp_path / "binary")
    assert paths(tmp_path) == [f"valid/{number}.png" for number in NUMBERS]
    save(tmp_path / "train" / "0.png", photo(20))
    assert paths(tmp_path) == ["train/0.png"]


def classes(seed=0):
    """A map of classes: 1 and 2 on 0."""
    return mask(seed).point(lambda value: value // 200 + (value > 0))


@pytest.mark.parametrize(
    ("image", "drawn", "draw"),
    [
        ("images/{}.jpg", "labels/{}.png", classes),
        ("images/{}.jpg", "annotations/{}.png", lambda seed: Image.merge("RGB", (mask(seed), classes(seed), mask(9)))),
    ],
    ids=["class ids", "colours"],
)
def test_maps_of_classes_are_masks(tmp_path, image, drawn, draw):
    for number in NUMBERS:
        save(tmp_path / image.format(number), photo(number))
        save(tmp_path / drawn.format(number), draw(number))
    assert sorted(scan(tmp_path).manifest["path"]) == [image.format(number) for number in NUMBERS]


COLOURS = {  # of the classes of a map, as public sets and tools choose them
    "VOC": [(128, 0, 0), (0, 128, 0), (128, 128, 0)],
    "pure": [(255, 0, 0), (0, 0, 255), (255, 255, 0)],
    "grey steps": [(85, 85, 85), (170, 170, 170), (255, 255, 255)],
    "one dark red": [(128, 0, 0)],
    "white": [(255, 255, 255)],
}
LOSSES = {
    "JPEG 75": ("jpg", {"quality": 75}),
    "JPEG 95": ("jpeg", {"quality": 95, "subsampling": 0}),
    "WebP": ("webp", {"quality": 80}),
    "JPEG 2000": ("jp2", {"irreversible": True, "quality_mode": "dB", "quality_layers": [40]}),
    "no loss": ("png", {}),
}


@pytest.mark.parametrize(("suffix", "options"), LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("colours", COLOURS.values(), ids=COLOURS)
def test_a_map_of_colours_keeps_its_areas_where_its_format_rings(tmp_path, colours, suffix, options):
    drawn, areas = np.zeros((256, 256, 3), np.uint8), [(10, 20, 50, 60), (80, 130, 45, 70), (150, 30, 60, 55)]
    for colour, (top, left, height, width) in zip(colours, areas, strict=False):
        drawn[top : top + height, left : left + width] = colour
    save(tmp_path / "test" / "cut" / "0.png", photo(0).resize((256, 256)))
    save(tmp_path / "labels" / "cut" / f"0.{suffix}", Image.fromarray(drawn), **options)
    found = scan(tmp_path)
    (row,) = found.manifest.to_dict("records")
    assert row["mask_path"] == f"labels/cut/0.{suffix}" and found.rejected.empty
    expected, seen = drawn.any(axis=-1), marked(row, tmp_path, (256, 256))
    assert (seen & expected).sum() / (seen | expected).sum() > 0.95


def test_what_ringing_drowns_is_listed_and_what_is_small_is_kept(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "test" / "cut" / f"{number}.png", photo(number))
    save(tmp_path / "ground_truth" / "cut" / "0.jpg", mask().point(lambda value: value // 100))  # class number 2
    small = np.zeros((64, 64, 3), np.uint8)
    small[30:33, 40:43] = (128, 0, 0)
    save(tmp_path / "ground_truth" / "cut" / "1.jpg", Image.fromarray(small))
    save(tmp_path / "ground_truth" / "cut" / "2.jpg", Image.new("L", (64, 64)))  # no defect is drawn
    found = scan(tmp_path)
    assert reasons(found) == {"ground_truth/cut/0.jpg": "mask_unreadable"}
    assert (
        found.rejected["detail"]
        .item()
        .endswith("holds values of at most 2, and its format loses such numbers of classes: save it as PNG")
    )
    rows = {row["path"]: row for row in found.manifest.to_dict("records")}
    seen = marked(rows["test/cut/1.png"], tmp_path, (64, 64))
    assert seen[30:33, 40:43].all() and seen.sum() < 20
    assert not marked(rows["test/cut/2.png"], tmp_path, (64, 64)).any()


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_photos_that_ring_are_no_masks(tmp_path, quality):
    grey = np.asarray(photo(1).resize((128, 128)))
    part = np.hypot(*(np.mgrid[:128, :128] - 64)) < 44
    colour = np.dstack([grey, grey // 2, grey // 3])
    for name, pixels in {
        "grey": grey,
        "on black": np.where(part, grey, 0),
        "on white": np.where(part, grey, 255),
        "red": colour,
        "dark": grey // 20 + 4,
    }.items():
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.jpg", quality=quality)
        assert looks_like_mask(tmp_path / "a.jpg") is False, name


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda seed: mask(seed).point(lambda value: 255 - value), "mark more than 75% of them: are black and white"),
        (lambda seed: mask(seed).point(lambda value: 1 if value else 255), "mark more than 75% of them"),  # 255 is void
        (lambda seed: Image.new("L", (64, 64)), "mark nothing, though a defect is named: test/cut/0.png, test/cut/1"),
    ],
    ids=["white is black", "void", "nothing"],
)
def test_masks_that_mark_everything_or_nothing_are_asked_about(tmp_path, draw, said):
    for number in NUMBERS:
        save(tmp_path / "test" / "cut" / f"{number}.png", photo(number))
        save(tmp_path / "ground_truth" / "cut" / f"{number}.png", draw(number))
    (doubt,) = scan(tmp_path).doubts
    assert doubt.startswith("the masks of 4 of 4 images ") and said in doubt


def save_pages(path, images):
    save(path, images[0], save_all=True, append_images=images[1:])


@pytest.mark.parametrize("choice", ["error", "first", "each"])
def test_masks_of_several_pages(tmp_path, choice):
    """Page 2 of a mask belongs to page 2 of its image; all pages of a mask belong to an image of one page."""
    save(tmp_path / "bad" / "one.png", photo(0))
    save_pages(tmp_path / "masks" / "bad" / "one.tif", [mask(0), mask(20)])
    save_pages(tmp_path / "bad" / "lot.tif", [photo(1), photo(2)])
    save_pages(tmp_path / "masks" / "bad" / "lot.tif", [mask(5), mask(30)])
    save_pages(tmp_path / "bad" / "odd.tif", [photo(3), photo(4)])
    save(tmp_path / "masks" / "bad" / "odd_1.png", mask(3))
    save_pages(tmp_path / "masks" / "bad" / "odd_2.tif", [mask(5), mask(30)])
    found, _ = read_source(ImageFolderDataset(root=str(tmp_path), category="c", pages=choice), tmp_path)
    seen = {row["path"]: marked(row, tmp_path, (64, 64)) for row in found.manifest.to_dict("records")}
    expected = {
        "error": {"bad/one.png": None},
        "first": {"bad/one.png": [0], "bad/lot.tif#1": [5], "bad/odd.tif#1": [3, 5]},
        "each": {"bad/one.png": [0, 20], "bad/lot.tif#1": [5], "bad/lot.tif#2": [30],
                 "bad/odd.tif#1": None, "bad/odd.tif#2": None},
    }[choice]  # fmt: skip
    assert set(seen) == set(expected)
    for path, seeds in expected.items():
        drawn = np.any([np.asarray(mask(seed)) > 0 for seed in seeds or ()], axis=0) if seeds else np.zeros((64, 64))
        assert np.array_equal(seen[path], drawn), path
    assert reasons(found) == {
        "error": {"masks/bad/one.tif": "mask_unreadable", "bad/lot.tif": "pages", "bad/odd.tif": "pages",
                  "masks/bad/lot.tif": "mask_without_image", "masks/bad/odd_1.png": "mask_without_image",
                  "masks/bad/odd_2.tif": "mask_without_image"},
        "first": {},
        "each": {"masks/bad/odd_1.png": "mask_of_pages", "masks/bad/odd_2.tif": "mask_unused"},
    }[choice]  # fmt: skip


def test_a_mask_of_several_pages_is_no_image(tmp_path):
    save(tmp_path / "0.png", photo(0))
    save_pages(tmp_path / "0_GT.tif", [mask(0), mask(20)])
    found, _ = read_source(ImageFolderDataset(root=str(tmp_path), category="c", pages="each"), tmp_path)
    assert found.manifest["mask_path"].tolist() == ["0_GT.tif#1|0_GT.tif#2"]


@pytest.mark.parametrize("name", ["{}mask.png", "{}_m.png"])
def test_a_drawing_beside_every_image_is_not_trained_on(tmp_path, name):
    for number in NUMBERS:
        save(tmp_path / f"{number}.png", photo(number))
        save(tmp_path / name.format(number), mask(number))
    found = scan(tmp_path)
    assert sorted(found.manifest["path"]) == [f"{number}.png" for number in NUMBERS]
    assert set(reasons(found).values()) == {"two_valued"}


def test_a_drawing_that_rings_is_asked_about(tmp_path):
    for number in NUMBERS:
        save(tmp_path / f"{number}.png", photo(number))
        save(tmp_path / f"{number}_m.jpg", mask(number))
    found = scan(tmp_path)
    assert found.doubts == ("4 of 8 images are nearly black and white: are they masks? 0_m.jpg, 1_m.jpg, 2_m.jpg",)


def test_more_drawings_than_photos_are_asked_about(tmp_path):
    for number in range(8):
        save(tmp_path / f"{number}.png", photo(number) if number < 3 else mask(number))
    found = scan(tmp_path)
    assert len(found.manifest) == 8
    assert found.doubts == ("5 of 8 images hold two grey values only: are they masks?",)


def test_products_below_a_split_are_no_classes_of_defects(tmp_path):
    for number in NUMBERS:
        save(tmp_path / "train" / "bottle" / "good" / f"{number}.png", photo(number))
        save(tmp_path / "test" / "bottle" / "good" / f"{number}.png", photo(10 + number))
    with pytest.raises(DataError, match=r"holds test/bottle/good/: .* expected bottle/test/good/ and one root per"):
        scan(tmp_path)
