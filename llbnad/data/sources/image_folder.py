"""A plain folder of images. Subfolders may name the label and the split of the images in them.

| folder                                   | meaning                                                                  |
|------------------------------------------|--------------------------------------------------------------------------|
| anything                                 | unlabelled                                                               |
| `good/` (also `ok`, `normal`, `pass` …)  | normal                                                                   |
| `bad/` (`nok`, `defect`, `reject` …)     | anomalous, class `defect`; a folder below it names the class             |
| `train/`, `test/` first                  | the split; below `test/` any other name is a defect's class, as in MVTec |
| `validation/`, `test_private/` first     | held out: neither trained nor tested on; `val/` as well, beside a split  |

Masks are optional, and an image may have several (`llbnad.data.sources.mask_files`). Folders such as `images/` say
nothing. Case does not matter in names (`llbnad.data.sources.folder_names`). Below a split, the words of a name count as
well: `test/ok_front/` is normal. Each image is a sample of its own. Every file that takes no part is listed with the
reason, and what each folder was taken for is said.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from llbnad.config import ImageFolderDataset
from llbnad.data.manifest import NORMAL
from llbnad.data.masks import join_masks
from llbnad.data.names import content_path
from llbnad.data.sources.folder_names import (
    HELD_OUT,
    HELD_OUT_BESIDE_A_SPLIT,
    IMAGE_FOLDERS,
    SPLITS,
    UNNAMED_CLASS,
    hinted_label,
    label_of,
    plain,
    says_something,
)
from llbnad.data.sources.mask_files import MaskFiles, find_masks
from llbnad.data.sources.meanings import Meaning, meaning_of
from llbnad.data.sources.records import Listing, Record, Rejection
from llbnad.data.sources.walk import walk
from llbnad.errors import DataError

SHOWN = 20  # folders in a note, and notes of one folder


def records(dataset: ImageFolderDataset, root: Path) -> Listing:
    """Return all images below `root`.

    Raises:
        DataError: there is no image, or `root` holds several data sets.
    """
    files, rejected = walk(root)
    masks = find_masks(root, files)
    images = [path for path in files if path not in masks.files]
    _refuse_several_sets(root, images)
    held_out = _held_out(images)
    found = [_record(path, dataset.category, masks.of_image.get(path, ())) for path in images if path not in held_out]
    for path in sorted(held_out):
        detail = f"images of {_speaking(path)[0]}/ are neither trained nor tested on"
        rejected += [Rejection(one, "held_out", detail) for one in (path, *masks.of_image.get(path, ()))]
    rejected += _unused_masks(masks, found)
    if not found:
        details = {rejection.reason: rejection.detail for rejection in rejected}
        counts = Counter(rejection.reason for rejection in rejected)
        told = "; ".join(f"{counts[reason]} {reason} ({details[reason]})" for reason in sorted(counts))
        raise DataError(f"no image below {root} to train on; there is {told or 'nothing'}")
    meanings = _meanings(found, held_out)
    return Listing(root, found, rejected, _notes(meanings), _doubts(found), dataset, meanings)


def _held_out(images: Sequence[str]) -> set[str]:
    """Return the images of folders that are neither for training nor for testing."""
    first = {path: plain("".join(_speaking(path)[:1])) for path in images}
    names = HELD_OUT | (HELD_OUT_BESIDE_A_SPLIT if set(first.values()).intersection(SPLITS) else frozenset())
    return {path for path in images if first[path] in names}


def _unused_masks(masks: MaskFiles, found: Sequence[Record]) -> list[Rejection]:
    """Return the masks that fit no image, and those of normal images."""
    rejected = [Rejection(path, "mask_without_image", reason) for path, reason in masks.without_image.items()]
    used = {mask for record in found if record.mask_path is not None for mask in masks.of_image[record.path]}
    for record in found:
        for mask in sorted(set(masks.of_image.get(record.path, ())) - used):
            rejected.append(Rejection(mask, "mask_unused", "its image is normal and has no defect to draw"))
    return rejected


def _record(path: str, category: str, masks: Sequence[str]) -> Record:
    folders = _speaking(path)
    split = SPLITS.get(plain(folders[0])) if folders else None
    label = _label(folders[1:] if split else folders, split)
    # a normal image has no defect to draw, whatever lies beside it
    mask_path = None if label == NORMAL else join_masks(masks)
    # what the camera called an image of a production line decides nothing
    return Record(path, category, content_path(path), mask_path, anomaly_class=label, split=split)


def _label(folders: Sequence[str], split: str | None) -> str | None:
    if not folders:
        return None
    label = label_of(folders[0]) or (hinted_label(folders[0]) if split else None)
    if label is not None:
        return folders[1].lower() if label == UNNAMED_CLASS and len(folders) > 1 else label
    return folders[0].lower() if split == "test" else None


def _speaking(path: str) -> list[str]:
    """Return the folders of a path whose names may say something of the images in them."""
    return [folder for folder in PurePosixPath(path).parts[:-1] if folder.lower() not in IMAGE_FOLDERS]


def _means(folder: str) -> bool:
    """Return whether a folder's name is that of a split or label, or hints at a label."""
    return says_something(folder) or hinted_label(folder) is not None


def _refuse_several_sets(root: Path, images: Sequence[str]) -> None:
    """Raise DataError if folders of `root` have folders of splits or labels of their own, and `root` has none."""
    inside: dict[str, str] = {}
    for folders in map(_speaking, images):
        if len(folders) > 2 and plain(folders[0]) in SPLITS and not _means(folders[1]) and says_something(folders[2]):
            raise DataError(
                f"{root} holds {'/'.join(folders[:3])}/: below a split, {folders[1]}/ has splits or labels of its own; "
                f"expected {folders[1]}/{folders[0]}/{folders[2]}/ and one root per product, or a manifest file"
            )
        depth = next((depth for depth, folder in enumerate(folders) if says_something(folder)), None)
        if depth == 0:
            return
        if depth is not None:
            inside["/".join(folders[:depth])] = folders[depth]
    if inside:
        names = ", ".join(f"{folder}/ ({below}/ …)" for folder, below in sorted(inside.items())[:8])
        raise DataError(
            f"{root} holds {len(inside)} folder{'s' * (len(inside) > 1)} with splits or labels of their own: {names}: "
            "give one of them as the root, or move their images into good/, bad/ or one folder"
        )


def _meanings(found: Sequence[Record], held_out: Iterable[str]) -> list[Meaning]:
    """Return what each folder was taken for: the top folders, and those below a split."""
    counts = Counter((_place(record.path), meaning_of(record.anomaly_class, record.split)) for record in found)
    counts.update((_place(path), "held out") for path in held_out)
    return [Meaning(folder, count, meaning) for (folder, meaning), count in sorted(counts.items())]


def _notes(meanings: Sequence[Meaning]) -> list[str]:
    """Return the meanings as lines to print, none if there is no folder. Many folders share a line by meaning."""
    if {one.place for one in meanings} == {"./"}:
        return []
    if len(meanings) <= SHOWN:
        return [f"folder {one.place}: {one.images} images, {one.meaning}" for one in meanings]
    lines = []
    for meaning in sorted({one.meaning for one in meanings}):
        folders = [one.place for one in meanings if one.meaning == meaning]
        count = sum(one.images for one in meanings if one.meaning == meaning)
        more = f" and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
        lines.append(f"folders {', '.join(folders[:SHOWN])}{more}: {count} images, {meaning}")
    return lines


def _doubts(found: Sequence[Record]) -> list[str]:
    """Return one line per folder whose name says nothing though others do, or hints at a label by one of its words."""
    sorted_ones = any(record.anomaly_class is not None for record in found)
    lines: Counter[str] = Counter()
    for record in found:
        place = _place(record.path)
        name = PurePosixPath(place).name
        speaks = not name or name.lower() in IMAGE_FOLDERS or says_something(name)
        if record.anomaly_class is None and sorted_ones and not speaks:
            lines[f"folder {place} is unlabelled, because its name says nothing, though other folders have labels"] += 1
        elif record.split and not speaks and hinted_label(name) is not None:
            meaning = "normal" if record.anomaly_class == NORMAL else "defects"
            lines[f"folder {place} is taken for {meaning} by a word of its name"] += 1
    return [f"{line}: {count} images" for line, count in sorted(lines.items())]


def _place(path: str) -> str:
    """Return the folder of a path that decides its meaning, with those above it."""
    shown: list[str] = []
    for folder in PurePosixPath(path).parts[:-1]:
        shown.append(folder)
        if folder.lower() not in IMAGE_FOLDERS and plain(folder) not in SPLITS:
            break
    return "/".join([*shown, ""]).replace("\n", "\\n") if shown else "./"
