"""Which files of a folder are masks, and of which image. No mask is trained on, whether it fits an image or not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llbnad.data.images import looks_like_mask
from llbnad.data.sources.folder_names import (
    HELD_OUT,
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    PERHAPS_MASK_FOLDERS,
    SPLITS,
    folders_of,
    stem_of,
    without_mask_suffix,
)

LOOKED_AT = 3  # files of a folder that may hold masks


@dataclass(frozen=True)
class MaskFiles:
    """The masks among the files of a folder."""

    files: frozenset[str]
    beside: Mapping[str, str]  # mask by the path, without suffix, of the image that it lies beside
    parallel: Mapping[str, str]  # mask below a mask folder, by the key that its image has

    def of(self, image: str) -> str | None:
        """Return the mask of an image, or None."""
        stem = stem_of(image)
        return self.beside.get(stem) or self.parallel.get(_key(image, ())) or self.parallel.get(_key(image, SPLITS))


def find_masks(root: Path, files: Sequence[str]) -> MaskFiles:
    """Find the masks among `files`, POSIX paths of images relative to `root`."""
    mask_folders = _mask_folders(root, files)
    below = [path for path in files if mask_folders.intersection(_prefixes(path))]
    others = [path for path in files if path not in set(below)]
    stems = {stem_of(path) for path in others}
    named = {
        without_mask_suffix(stem_of(path)): path
        for path in others
        if without_mask_suffix(stem_of(path)) != stem_of(path) and without_mask_suffix(stem_of(path)) in stems
    }
    beside = {**_of_another_suffix(root, [path for path in others if path not in set(named.values())]), **named}
    parallel = {without_mask_suffix(_key(path, ())): path for path in below}
    return MaskFiles(frozenset([*below, *beside.values()]), beside, parallel)


def _mask_folders(root: Path, files: Sequence[str]) -> set[str]:
    """Return the folders that hold masks, in lower case."""
    perhaps: dict[str, list[str]] = defaultdict(list)
    found = set()
    for path in files:
        for folder in _prefixes(path):
            name = PurePosixPath(folder).name
            if name in MASK_FOLDERS:
                found.add(folder)
            elif name in PERHAPS_MASK_FOLDERS:
                perhaps[folder].append(path)
    return found | {
        folder for folder, inside in perhaps.items() if all(looks_like_mask(root / one) for one in inside[:LOOKED_AT])
    }


def _of_another_suffix(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the masks that share folder and stem with an image: of several such files, those that look like masks."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[stem_of(path)].append(path)
    found = {}
    for stem, group in groups.items():
        masks = [path for path in group if looks_like_mask(root / path)] if len(group) > 1 else []
        if 0 < len(masks) < len(group):
            found[stem] = masks[0]
    return found


def _prefixes(path: str) -> list[str]:
    """Return the folders that a path lies in, from the outermost one, each with its own way from the root."""
    folders = folders_of(path)
    return ["/".join(folders[: depth + 1]) for depth in range(len(folders))]


def _key(path: str, without: Mapping[str, str] | tuple[()]) -> str:
    """Return what a path shares with that of its mask: no suffix, no folder of images or masks, none in `without`."""
    silent = {*MASK_FOLDERS, *PERHAPS_MASK_FOLDERS, *IMAGE_FOLDERS, *without}
    inside = [folder for folder in folders_of(path) if folder not in silent or folder in HELD_OUT]
    return "/".join([*inside, PurePosixPath(path.lower()).stem])
