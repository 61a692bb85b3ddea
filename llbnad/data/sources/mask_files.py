"""Which files of a folder are masks, and of which image. No mask is trained on, whether it fits an image or not."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llbnad.data.images import looks_like_mask
from llbnad.data.sources.folder_names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    PERHAPS_MASK_FOLDERS,
    SPLITS,
    SURE_MASK_SUFFIX,
    folders_of,
    stem_of,
    without_mask_suffix,
)


@dataclass(frozen=True)
class MaskFiles:
    """The masks among the files of a folder."""

    files: frozenset[str]
    beside: Mapping[str, str]  # mask by the path, without suffix, of the image that it lies beside
    parallel: Mapping[str, str]  # mask below a mask folder, by the key that its image has

    def of(self, image: str) -> str | None:
        """Return the mask of an image, or None."""
        stem = stem_of(image)
        return self.beside.get(stem) or self.parallel.get(_key(image)) or self.parallel.get(_key(image, SPLITS))


def find_masks(root: Path, files: Sequence[str]) -> MaskFiles:
    """Find the masks among `files`, POSIX paths of images relative to `root`."""
    folders = _mask_folders(root, files)
    below = [path for path in files if folders.intersection(_prefixes(path))]
    parallel = {without_mask_suffix(_key(path)): path for path in below}
    parallel |= {_key(path): path for path in below}  # the name of an image may end in a mask's suffix, too
    others = sorted(set(files) - set(below))
    named = _named(root, others)
    paired = _of_another_suffix(root, sorted(set(others) - set(named)))
    beside: dict[str, str] = {}
    for path, image in [*named.items(), *paired.items()]:
        beside.setdefault(image, path)  # the first of several; the others fit no image and are listed
    return MaskFiles(frozenset([*below, *named, *paired]), beside, parallel)


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
    return found | {folder for folder, inside in perhaps.items() if _drawn(root, _some(inside))}


def _named(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the masks with a mask's name, and the path, without suffix, of the image that each would lie beside.

    `NAME_mask` beside NAME is a mask whatever it holds. Photos may be called `NAME_label` as well, and anything may be
    called so where no image NAME is: there the content decides.
    """
    stems = {stem_of(path) for path in files}
    found = {}
    for path in files:
        stem = stem_of(path)
        image = without_mask_suffix(stem)
        sure = stem.endswith(SURE_MASK_SUFFIX) and image in stems
        if image != stem and (sure or _drawn(root, [path])):
            found[path] = image
    return found


def _of_another_suffix(root: Path, files: Sequence[str]) -> dict[str, str]:
    """Return the masks that share folder and stem with a photo, and that path without suffix."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[stem_of(path)].append(path)
    found: dict[str, str] = {}
    for stem, group in groups.items():
        masks = [path for path in group if _drawn(root, [path])] if len(group) > 1 else []
        if len(masks) < len(group):
            found |= dict.fromkeys(masks, stem)
    return found


def _some(paths: Sequence[str]) -> list[str]:
    """Return up to five of the paths, from the first to the last."""
    return list(dict.fromkeys(paths[len(paths) * part // 5] for part in range(5)))


def _drawn(root: Path, paths: Iterable[str]) -> bool:
    """Return whether all files that can be read look like masks, and there is one."""
    judged = [one for one in (looks_like_mask(root / path) for path in paths) if one is not None]
    return bool(judged) and all(judged)


def _prefixes(path: str) -> list[str]:
    """Return the folders that a path lies in, from the outermost one, each with its own way from the root."""
    folders = folders_of(path)
    return ["/".join(folders[: depth + 1]) for depth in range(len(folders))]


def _key(path: str, without: Iterable[str] = ()) -> str:
    """Return what a path shares with that of its mask: no suffix, no folder of images or masks, none in `without`."""
    silent = {*MASK_FOLDERS, *PERHAPS_MASK_FOLDERS, *IMAGE_FOLDERS, *without}
    inside = [folder for folder in folders_of(path) if folder not in silent]
    return "/".join([*inside, PurePosixPath(path.lower()).stem])
