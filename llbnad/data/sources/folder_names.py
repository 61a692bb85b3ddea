"""Read what the names of folders and files say about the images in them, as public data sets and people use them."""

from pathlib import PurePosixPath

SPLITS = {"train": "train", "test": "test", "test_public": "test"}
# neither trained nor tested on: held out by whoever made the set, or without public labels
HELD_OUT = frozenset({"validation", "test_private", "test_private_mixed"})
HELD_OUT_BESIDE_A_SPLIT = frozenset({"val", "valid"})  # alone, `valid/` may be what an inspection calls good
GOOD = frozenset({"good", "ok", "okay", "normal", "pass", "passed", "io", "i.o.", "i.o", "gut"})
BAD = frozenset(
    {"bad", "ng", "nok", "ko", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal",
     "fail", "failed", "faulty", "reject", "rejected", "rejects", "scrap", "nio", "n.i.o.", "n.i.o"}
)  # fmt: skip
UNNAMED_CLASS = "defect"

MASK_FOLDERS = frozenset({"ground_truth", "groundtruth", "masks", "segmentationclass"})
# names that products have as well, labels for example: the content of their files decides
PERHAPS_MASK_FOLDERS = frozenset({"mask", "label", "labels", "gt", "annotation", "annotations"})
SURE_MASK_SUFFIX = "_mask"
MASK_SUFFIXES = (SURE_MASK_SUFFIX, "_gt", "_label")
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages"})  # they say nothing of an image
SYSTEM_FOLDERS = frozenset({"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"})


def folders_of(path: str) -> list[str]:
    """Return the folders of a POSIX path, in lower case."""
    return [part.lower() for part in PurePosixPath(path).parts[:-1]]


def says_something(folder: str) -> bool:
    """Return whether a folder's name is that of a split or of a label."""
    name = folder.lower()
    return name in SPLITS or name in HELD_OUT or name in GOOD or name in BAD


def stem_of(path: str) -> str:
    """Return a path in lower case and without its suffix."""
    return str(PurePosixPath(path.lower()).with_suffix(""))


def without_mask_suffix(stem: str) -> str:
    """Return a stem without `_mask`, `_GT` or `_label` at its end."""
    for suffix in MASK_SUFFIXES:
        if stem.endswith(suffix):
            return stem.removesuffix(suffix)
    return stem
