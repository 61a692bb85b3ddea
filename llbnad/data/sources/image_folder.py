"""A plain folder of images. Subfolders may name the label and the split of the images in them.

| folder                                   | meaning                                                                  |
|------------------------------------------|--------------------------------------------------------------------------|
| anything                                 | unlabelled                                                               |
| `good/` (also `ok`, `normal`, `pass` …)  | normal                                                                   |
| `bad/` (`nok`, `defect`, `reject` …)     | anomalous, class `defect`; a folder below it names the class             |
| `train/`, `test/` first                  | the split; below `test/` any other name is a defect's class, as in MVTec |
| `validation/`, `test_private/` first     | held out: neither trained nor tested on; `val/` as well, beside a split  |

Masks are optional. A mask is `<name>_mask.<suffix>` (also `_GT`, `_label`) or `<name>.<another suffix>` beside the
image, or the same path below `ground_truth/`, `masks/`, `SegmentationClass/`, or below `mask/`, `label/`, `gt/` if the
files there look like masks. Folders such as `images/` say nothing. Case does not matter in names
(`llbnad.data.sources.folder_names`). Each image is a sample of its own. Every file that takes no part is listed with
the reason.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from llbnad.config import ImageFolderDataset
from llbnad.data.decode import IMAGE_SUFFIXES
from llbnad.data.manifest import NORMAL
from llbnad.data.sources.base import Listing, Record, Rejection
from llbnad.data.sources.folder_names import (
    BAD,
    GOOD,
    HELD_OUT,
    HELD_OUT_BESIDE_A_SPLIT,
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    PERHAPS_MASK_FOLDERS,
    SPLITS,
    SYSTEM_FOLDERS,
    UNNAMED_CLASS,
    folders_of,
    says_something,
)
from llbnad.data.sources.mask_files import MaskFiles, find_masks
from llbnad.errors import DataError
from llbnad.utils.files import linked_folders, relative_files

SHOWN = 20  # folders in the notes


def records(dataset: ImageFolderDataset, root: Path) -> Listing:
    """Return all images below `root`.

    Raises:
        DataError: there is no image, or `root` holds several data sets.
    """
    everything = list(relative_files(root))
    rejected = [Rejection(path, "linked_folder", "a link to a folder is not followed") for path in linked_folders(root)]
    files = []
    for path in everything:
        if SYSTEM_FOLDERS.intersection(folders_of(path)):
            rejected.append(Rejection(path, "system_folder", "written by an operating system, not by a camera"))
        elif PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES or not _is_readable(root / path):
            files.append(path)
        else:
            rejected.append(
                Rejection(path, "other_file", f"expected a name ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
            )
    _refuse_several_sets(root, files)
    masks = find_masks(root, files)
    images = [path for path in files if path not in masks.files]
    held_out = _held_out(images)
    rejected += [
        Rejection(path, "held_out", f"images of {_first(path)}/ are neither trained nor tested on") for path in held_out
    ]
    images = [path for path in images if path not in held_out]
    if not images:
        links = f"; {len(linked_folders(root))} links to folders are not followed" if linked_folders(root) else ""
        raise DataError(f"no image below {root}; expected files ending in {sorted(IMAGE_SUFFIXES)}{links}")
    found = [_record(path, dataset.category, masks.of(path)) for path in images]
    rejected += _unused_masks(masks, found, held_out)
    return Listing(root, found, rejected, _notes(found, sorted(held_out)), dataset)


def _held_out(images: Sequence[str]) -> set[str]:
    """Return the images of folders that are neither for training nor for testing."""
    first = {_first(path) for path in images}
    names = HELD_OUT | (HELD_OUT_BESIDE_A_SPLIT if first.intersection(SPLITS) else frozenset())
    return {path for path in images if _first(path) in names}


def _unused_masks(masks: MaskFiles, found: Sequence[Record], held_out: Iterable[str]) -> list[Rejection]:
    used = {record.mask_path for record in found} | {masks.of(path) for path in held_out}
    of_normal = {masks.of(record.path) for record in found if record.anomaly_class == NORMAL}
    return [
        Rejection(
            path,
            "mask_unused",
            "its image is normal and has no defect to draw" if path in of_normal else "a mask that fits no image",
        )
        for path in sorted(masks.files - used)
    ]


def _record(path: str, category: str, mask: str | None) -> Record:
    folders = [folder for folder in folders_of(path) if folder not in IMAGE_FOLDERS]
    split = SPLITS[folders.pop(0)] if folders and folders[0] in SPLITS else None
    label = _label(folders, split)
    # a normal image has no defect to draw, whatever lies beside it
    mask_path = None if label == NORMAL else mask
    return Record(path, category, sample_id=path, mask_path=mask_path, anomaly_class=label, split=split)


def _label(folders: list[str], split: str | None) -> str | None:
    if not folders:
        return None
    if folders[0] in GOOD:
        return NORMAL
    if folders[0] in BAD:
        return folders[1] if len(folders) > 1 else UNNAMED_CLASS
    return folders[0] if split == "test" else None


def _refuse_several_sets(root: Path, files: Sequence[str]) -> None:
    """Raise DataError if folders of `root` have folders of splits or labels of their own, and `root` has none."""
    silent = IMAGE_FOLDERS | MASK_FOLDERS | PERHAPS_MASK_FOLDERS
    ways = [[part for part in PurePosixPath(path).parts[:-1] if part.lower() not in silent] for path in files]
    if any(way and says_something(way[0]) for way in ways):
        return
    inside = {way[0]: way[1] for way in ways if len(way) > 1 and says_something(way[1])}
    if inside:
        names = ", ".join(f"{folder}/ ({below}/ …)" for folder, below in sorted(inside.items())[:8])
        raise DataError(
            f"{root} holds {len(inside)} folder(s) with splits or labels of their own: {names}: "
            "give one of them as the root, or move their images into good/, bad/ or one folder"
        )


def _is_readable(path: Path) -> bool:
    """Return whether a path is a file. A folder without permission is not: the reader of the images reports it."""
    try:
        return path.is_file()
    except OSError:
        return False


def _first(path: str) -> str:
    folders = folders_of(path)
    return folders[0] if folders else ""


def _notes(found: Sequence[Record], held_out: Sequence[str]) -> list[str]:
    """Return what each top folder was taken for, one line each."""
    meanings: Counter[tuple[str, str]] = Counter()
    for record in found:
        meaning = {None: "unlabelled", NORMAL: "normal"}.get(record.anomaly_class, "defects")
        meanings[_top(record.path), f"{record.split}, {meaning}" if record.split else meaning] += 1
    meanings.update((_top(path), "held out") for path in held_out)
    if {folder for folder, _ in meanings} == {"./"}:
        return []
    lines = [f"folder {folder}: {count} images, {meaning}" for (folder, meaning), count in sorted(meanings.items())]
    more = [f"and {len(lines) - SHOWN} lines more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


def _top(path: str) -> str:
    parts = PurePosixPath(path).parts
    return f"{parts[0]}/" if len(parts) > 1 else "./"
