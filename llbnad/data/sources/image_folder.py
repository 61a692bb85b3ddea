"""A plain folder of images. Subfolders may name the label and the split of the images in them.

| folder                                   | meaning                                                                  |
|------------------------------------------|--------------------------------------------------------------------------|
| anything                                 | unlabelled                                                               |
| `good/` (also `ok`, `normal`)            | normal                                                                   |
| `bad/` (`ng`, `defect`, `anomaly` …)     | anomalous, class `defect`; a folder below it names the class             |
| `train/`, `test/` first                  | the split; below `test/` any other name is a defect's class, as in MVTec |

Masks are optional. A mask is `<name>_mask.<suffix>` beside the image, or the same path below `ground_truth/` or
`masks/` with or without `_mask`. Case does not matter in names. Each image is a sample of its own.
"""

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from llbnad.config import ImageFolderDataset
from llbnad.data.images import IMAGE_SUFFIXES
from llbnad.data.manifest import NORMAL
from llbnad.data.sources.base import Listing, Record
from llbnad.errors import DataError
from llbnad.utils.files import relative_files

SPLITS = ("train", "test")
GOOD = frozenset({"good", "ok", "normal"})
BAD = frozenset({"bad", "ng", "defect", "defects", "defective", "anomaly", "anomalous", "abnormal"})
MASK_FOLDERS = ("ground_truth", "masks")
MASK_SUFFIX = "_mask"
UNNAMED_CLASS = "defect"


def records(dataset: ImageFolderDataset, root: Path) -> Listing:
    """Return all images below `root`.

    Raises:
        DataError: there is no image.
    """
    files = list(relative_files(root, IMAGE_SUFFIXES))
    beside = _beside(files)
    parallel = {
        _parallel_key(path, MASK_FOLDERS).removesuffix(MASK_SUFFIX): path for path in files if _in_mask_folder(path)
    }
    masks = {*beside.values(), *parallel.values()}
    images = [path for path in files if path not in masks and not _in_mask_folder(path)]
    if not images:
        raise DataError(f"no image below {root}; expected files ending in {sorted(IMAGE_SUFFIXES)}")
    found = {path: beside.get(_stem(path)) or _parallel_mask(path, parallel) for path in images}
    return Listing(root, [_record(path, dataset.category, found[path]) for path in images])


def _record(path: str, category: str, mask: str | None) -> Record:
    folders = [part.lower() for part in PurePosixPath(path).parts[:-1]]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
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


def _beside(files: list[str]) -> dict[str, str]:
    """Return the masks named `<image>_mask` that lie beside an image, by the stem of that image."""
    stems = {_stem(path) for path in files}
    masks = {_stem(path).removesuffix(MASK_SUFFIX): path for path in files if _stem(path).endswith(MASK_SUFFIX)}
    return {image: path for image, path in masks.items() if image in stems}


def _in_mask_folder(path: str) -> bool:
    folders = [part.lower() for part in PurePosixPath(path).parts[:-1]]
    return any(folder in MASK_FOLDERS for folder in folders[:2])


def _parallel_mask(image: str, masks: Mapping[str, str]) -> str | None:
    """Return the mask of `image` below a mask folder: the one for the image's split, else the one without a split."""
    return masks.get(_parallel_key(image, MASK_FOLDERS)) or masks.get(_parallel_key(image, (*SPLITS, *MASK_FOLDERS)))


def _parallel_key(path: str, without: Collection[str]) -> str:
    """Return the key that an image shares with its mask in a parallel folder: the path without suffix and `without`."""
    *folders, name = PurePosixPath(path.lower()).parts
    inside = [folder for folder in folders if folder not in without]
    return "/".join([*inside, PurePosixPath(name).stem])


def _stem(path: str) -> str:
    return str(PurePosixPath(path.lower()).with_suffix(""))
