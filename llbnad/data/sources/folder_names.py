"""Read what the names of folders and files say about the images in them, as public data sets and people use them.

Names are compared without case and without the characters `.`, `_`, `-` and spaces: `N.i.O.` is `nio`.
"""

import re
from pathlib import PurePosixPath

from llbnad.data.manifest import NORMAL

SPLITS = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "trainimages"), "train"),
    **dict.fromkeys(("test", "testing", "testset", "testimages", "testpublic"), "test"),
}
# neither trained nor tested on: held out by whoever made the set, or without public labels
HELD_OUT = frozenset({"validation", "holdout", "heldout", "testprivate", "testprivatemixed"})
# alone, `valid/` may be what an inspection calls good
HELD_OUT_BESIDE_A_SPLIT = frozenset({"val", "valid", "dev", "eval", "evaluation"})
GOOD = frozenset(
    {"good", "ok", "okay", "normal", "pass", "passed", "io", "gut", "gutteil", "gutteile", "nodefect", "nodefects",
     "defectfree", "nondefective", "healthy", "fehlerfrei", "conforming", "conforme", "undamaged", "intact", "flawless",
     "良品", "正常", "合格"}
)  # fmt: skip
BAD = frozenset(
    {"bad", "ng", "nok", "ko", "notok", "notgood", "nogood", "defect", "defects", "defective", "anomaly", "anomalies",
     "anomalous", "abnormal", "fail", "failed", "failure", "faulty", "reject", "rejected", "rejects", "scrap", "nio",
     "ausschuss", "schlecht", "schlechtteil", "schlechtteile", "nonconforming", "nonconforme", "def", "不良", "不良品",
     "次品", "异常", "不合格"}
)  # fmt: skip
NEGATIONS = frozenset({"no", "not", "non", "without", "kein", "keine", "ohne", "nicht", "free", "un"})
UNNAMED_CLASS = "defect"

PICTURE_NAMES = ("image", "img", "original", "raw", "input", "photo")  # of the one image in a folder of its own
MASK_FOLDERS = frozenset(
    {"groundtruth", "masks", "segmentationclass", "segmentationclasspng", "segmentationobject", "segmentationobjectpng"}
)
# folders or files of pictures with their masks laid over them, which annotation tools draw for people
OVERLAYS = frozenset(
    {"maskshuman", "segmentationclassvisualization", "segmentationobjectvisualization", "labelviz", "overlay",
     "overlays"}
)  # fmt: skip
# names that products have as well, labels for example: the content of their files decides
MASK_WORDS = ("ground_truth", "groundtruth", "segmentation", "annotations", "annotation", "labels", "label",
              "masks", "mask", "masken", "maske", "anno", "seg", "gts", "gt", "roi")  # fmt: skip
SURE_MASK_WORDS = frozenset({"mask", "masks"})
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "jpegimages"})  # they say nothing of an image
SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",
        "__macosx",
        "$recycle.bin",
        "#recycle",
        "system volume information",
        "lost+found",
        "thumbs",
        "thumbnails",
        "@recycle",
        "#snapshot",
        "@recently-snapshot",
        "recycler",
        "found.000",
    }
)

_MASK = "|".join(MASK_WORDS)
_NUMBER = r"[ ._-]*\(?\d+\)?"
_AFTER = re.compile(rf"(?P<image>.+?)[ ._-]+(?P<word>{_MASK})(?:{_NUMBER})?$")  # NAME_mask, NAME-gt, NAME.mask_2
_BEFORE = re.compile(rf"(?P<word>{_MASK})[ ._-]+(?P<image>.+)$")  # mask_NAME
_ALONE = re.compile(rf"(?P<word>{_MASK})(?:{_NUMBER})?$")  # mask, mask_2
_NUMBERED = re.compile(r"(?P<image>.+?)(?:[ ._-]+\d+|[ ._-]*\(\d+\))$")  # NAME_2, NAME (2)
_SUFFIXED = re.compile(r"(?P<image>.+)\.(?:png|jpe?g|bmp|tiff?|webp)$")  # NAME.png
_PICTURE = re.compile(rf"(?:{'|'.join(PICTURE_NAMES)})[ ._-]+(?P<image>.+)")  # img_NAME beside mask_NAME
_LABEL_STUDIO = re.compile(r"(?P<image>.+)-annotation-\d+-by-.+-tag-.+$")


def plain(name: str) -> str:
    """Return a name in lower case, without `.`, `_`, `-` and spaces."""
    return re.sub(r"[\s._-]+", "", name.lower())


def folders_of(path: str) -> list[str]:
    """Return the folders of a POSIX path, in lower case."""
    return [part.lower() for part in PurePosixPath(path).parts[:-1]]


def says_something(folder: str) -> bool:
    """Return whether a folder's name is that of a split or of a label."""
    name = plain(folder)
    return name in SPLITS or name in HELD_OUT or name in GOOD or name in BAD


def label_of(name: str) -> str | None:
    """Return the label that a name stands for: normal, the class of a defect without a name, or None for neither."""
    return NORMAL if plain(name) in GOOD else UNNAMED_CLASS if plain(name) in BAD else None


def hinted_label(name: str) -> str | None:
    """Return the label that the words of a name hint at, as in `ok_front`; None if they hint at none or at both."""
    words = {plain(word) for word in re.split(r"[\s._-]+", name)}
    if words & NEGATIONS or bool(words & GOOD) == bool(words & BAD):
        return None
    return NORMAL if words & GOOD else UNNAMED_CLASS


def may_hold_masks(folder: str) -> bool:
    """Return whether a word of a folder's name is that of masks: `mask_images`, `labels`, `gt`."""
    words = re.split(r"[\s._-]+", folder.lower())
    return bool({*words, plain(folder)}.intersection(MASK_WORDS))


def stem_of(path: str) -> str:
    """Return a path in lower case and without its suffix."""
    return str(PurePosixPath(path.lower()).with_suffix(""))


def mask_names(stem: str) -> list[tuple[str, str]]:
    """Return the name of the image and the word for masks of each way to read a name such as `NAME_mask_2`.

    The name of the image is empty if the word is all there is. The list is empty if there is no word.
    """
    matches = [pattern.fullmatch(stem) for pattern in (_AFTER, _BEFORE, _ALONE)]
    return [(match.groupdict().get("image", ""), match["word"]) for match in matches if match]


def picture_name(stem: str) -> str | None:
    """Return NAME of `img_NAME`, whose mask may be called `mask_NAME`; None for other names."""
    match = _PICTURE.fullmatch(stem)
    return match["image"] if match else None


def named_by_task(stem: str) -> bool:
    """Return whether Label Studio named a mask, after its task instead of its image."""
    return stem.startswith("task-") and _LABEL_STUDIO.fullmatch(stem) is not None


def image_names(stem: str) -> list[str]:
    """Return the names that the image of a mask may have, the likeliest first, in lower case.

    `a_1_mask` is the mask of `a_1`, or one of several masks of `a`; a name with a suffix, `a.png`, counts as well.
    """
    found = [stem]
    for name in found:  # grows while it is read
        more = [image for image, _ in mask_names(name)]
        matches = [pattern.fullmatch(name) for pattern in (_LABEL_STUDIO, _SUFFIXED, _NUMBERED)]
        more += [match["image"] for match in matches if match]
        found += [one for one in dict.fromkeys(more) if one and one not in found]
    return found
