"""Walk through a folder of images: every path is either a file that may be an image, or listed with the reason."""

import os
import stat
from pathlib import Path

from llbnad.data.decode import IMAGE_SUFFIXES
from llbnad.data.sources.folder_names import OVERLAYS, SYSTEM_FOLDERS, folders_of, plain
from llbnad.data.sources.records import Rejection


def walk(root: Path) -> tuple[list[str], list[Rejection]]:
    """Return the files below `root` that may be images, sorted, and a rejection for everything else.

    Links to files are read, links to folders are not followed, because they may lead in a circle. A hidden folder is
    listed as one. A path that cannot be examined (a broken link, no permission) counts as an image, because somebody
    wanted one there: the reader of the images reports it. All paths are POSIX, relative to `root`.
    """
    files: list[str] = []
    rejected: list[Rejection] = []
    locked: list[OSError] = []
    for folder, names, inside in os.walk(root, onerror=locked.append):
        place = Path(folder).relative_to(root)
        for name in sorted(names):
            path = (place / name).as_posix()
            if name.startswith("."):
                names.remove(name)
                rejected.append(Rejection(path, "hidden", "a hidden folder, whose name begins with a dot"))
            elif (root / path).is_symlink():
                rejected.append(Rejection(path, "linked_folder", "a link to a folder is not followed"))
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES and _is_empty(root / path):
                rejected.append(Rejection(path, "folder", "an empty folder with the name of an image"))
        for path in ((place / name).as_posix() for name in inside):
            reason = _no_image(root, path)
            if reason is None:
                files.append(path)
            else:
                rejected.append(Rejection(path, *reason))
    files += [Path(error.filename).relative_to(root).as_posix() for error in locked]
    return sorted(files), rejected


def _no_image(root: Path, path: str) -> tuple[str, str] | None:
    """Return reason and detail why a path is no image file, or None if it may be one."""
    if SYSTEM_FOLDERS.intersection(folders_of(path)):
        return "system_folder", "written by an operating system or a viewer, not by a camera"
    if OVERLAYS.intersection(map(plain, [*Path(path).parts[:-1], Path(path).stem])):
        return "overlay", "a picture with its mask laid over it, drawn for people"
    if Path(path).name.startswith("."):
        return "hidden", "a hidden file, whose name begins with a dot"
    try:
        mode = (root / path).stat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode):
        return "special_file", "a pipe, a socket or a device; opening it might never end"
    if Path(path).suffix.lower() not in IMAGE_SUFFIXES:
        return "other_file", f"expected a name ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
    return None


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False  # listed by `walk` as a folder that cannot be read
