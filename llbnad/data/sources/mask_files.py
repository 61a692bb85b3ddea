"""Which files of a folder are masks, and of which image. No mask is trained on, whether it fits an image or not.

A mask is recognised by its folder (`ground_truth/`, `masks/` …), by its name (`NAME_mask_2`), or because it is drawn
and lies beside a photo of the same name. It belongs to the first image that there is of those that its path may mean:

| mask                                               | image                                                       |
|----------------------------------------------------|-------------------------------------------------------------|
| `ground_truth/crack/0.png`, `…/0_mask.png`         | `crack/0.*`, `test/crack/0.*`                               |
| `masks/0_1.png`, `masks/0_mask_2.png`, `0.jpg.png` | one of several masks of `0.*`                               |
| `ground_truth/crack/0/000.png`                     | one of several masks of `crack/0.*`, as in MVTec LOCO       |
| `a/masks/x.png`, `a/label.png`                     | `a/a.*`, `a/image.*`: the folder is that of one image       |
| `masks/mask_0.png`, `mask_0.png`                   | `img_0.*`, `image_0.*`, if there is no `0.*`                |
| `masks/0.png`                                      | the only image called `0.*` in any folder beside `masks/`   |

A mask that may mean images of several places is of none.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llbnad.data.drawn import looks_like_mask
from llbnad.data.masks import SEPARATOR
from llbnad.data.sources.folder_names import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    PICTURE_NAMES,
    SPLITS,
    SURE_MASK_WORDS,
    folders_of,
    image_names,
    mask_names,
    may_hold_masks,
    named_by_task,
    picture_name,
    plain,
    stem_of,
)


@dataclass(frozen=True)
class MaskFiles:
    """The masks among the files of a folder."""

    files: frozenset[str]
    of_image: Mapping[str, Sequence[str]]
    without_image: Mapping[str, str]  # the reason by mask


def find_masks(root: Path, files: Sequence[str]) -> MaskFiles:
    """Find the masks among `files`, POSIX paths of images relative to `root`, and the image of each."""
    folders = _mask_folders(root, files)
    below = [path for path in files if folders.intersection(_prefixes(path))]
    others = sorted(set(files) - set(below))
    named = _named(root, others)
    paired = _of_another_suffix(root, sorted(set(others) - set(named)))
    images = sorted(set(others) - set(named) - set(paired))
    meanings = {path: list(_meanings_below(path, folders)) for path in below}
    meanings |= {path: list(_meanings_beside(path)) for path in [*named, *paired]}
    index = _Index(images if meanings else ())
    of_image: dict[str, list[str]] = defaultdict(list)
    without: dict[str, str] = {}
    for path in sorted(meanings):
        found = [] if SEPARATOR in path else index.first(meanings[path])
        if SEPARATOR in path:
            without[path] = f"its path holds {SEPARATOR!r}, which separates several masks: rename it"
        elif not found:
            task = named_by_task(stem_of(PurePosixPath(path).name))
            hint = ": Label Studio names the task; rename it, or name image and mask in a manifest file" if task else ""
            without[path] = f"a mask that fits no image{hint}"
        elif len({stem_of(image) for image in found}) > 1:
            without[path] = f"a mask that fits {len(found)} images: {', '.join(found[:3])}"
        else:
            for image in found:
                of_image[image].append(path)
    return MaskFiles(frozenset(meanings), of_image, without)


class _Index:
    """Images by the keys that masks may mean them by: the path without suffix, with it, or the bare name."""

    def __init__(self, images: Sequence[str]) -> None:
        self.by_place: dict[str, list[str]] = defaultdict(list)
        self.without_split: dict[str, list[str]] = defaultdict(list)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.prefixed: dict[str, list[str]] = defaultdict(list)
        for image in images:
            folders = _speaking(folders_of(image))
            inside = [folder for folder in folders if plain(folder) not in SPLITS]
            name = PurePosixPath(image.lower()).name
            if (rest := picture_name(stem_of(name))) is not None:
                self.prefixed["/".join([*inside, rest])].append(image)
            for end in dict.fromkeys((stem_of(name), name)):
                self.by_place["/".join([*folders, end])].append(image)
                self.without_split["/".join([*inside, end])].append(image)
                for depth in range(len(folders) + 1):
                    self.by_name["/".join([*folders[:depth], "*", end])].append(image)

    def first(self, keys: Sequence[str]) -> list[str]:
        """Return the images of the first key that has some, or none. `img_0` is 0 only if no other image is."""
        for key in keys:
            for found in (self.by_place, self.without_split, self.by_name):
                if key in found:
                    return found[key]
        return next((self.prefixed[key] for key in keys if key in self.prefixed), [])


def _meanings_below(path: str, mask_folders: set[str]) -> Iterator[str]:
    """Yield the keys of the images that a mask below a mask folder may mean, the likeliest first."""
    folders, stem = folders_of(path), stem_of(PurePosixPath(path).name)
    depths = [depth for depth, prefix in enumerate(_prefixes(path)) if prefix in mask_folders]
    outermost = _speaking([*folders[: depths[0]], *folders[depths[0] + 1 :]])
    all_of_them = _speaking([folder for depth, folder in enumerate(folders) if depth not in depths])
    for inside in (outermost, all_of_them):
        yield from ("/".join([*inside, name]) for name in image_names(stem))
        if inside:  # a folder of masks for each image
            yield from ("/".join([*inside[:-1], name]) for name in image_names(inside[-1]))
    owner = _speaking(folders[: depths[0]])
    yield from _only_image_of(owner)
    if len(all_of_them) == len(owner):
        yield from ("/".join([*owner, "*", name]) for name in image_names(stem))


def _meanings_beside(path: str) -> Iterator[str]:
    """Yield the keys of the images that a mask outside of mask folders may mean, the likeliest first."""
    folders, stem = _speaking(folders_of(path)), stem_of(PurePosixPath(path).name)
    yield from ("/".join([*folders, name]) for name in image_names(stem))
    if any(image == "" for image, _ in mask_names(stem)):
        yield from _only_image_of(folders)


def _only_image_of(folders: Sequence[str]) -> Iterator[str]:
    """Yield the keys of the image of a folder that holds one image and its masks."""
    if folders:
        yield from ("/".join([*folders, name]) for name in (folders[-1], *PICTURE_NAMES))


def _speaking(folders: Iterable[str]) -> list[str]:
    """Return the folders whose names say something of an image."""
    return [folder for folder in folders if folder not in IMAGE_FOLDERS]


def _mask_folders(root: Path, files: Sequence[str]) -> set[str]:
    """Return the folders that hold masks, in lower case."""
    perhaps: dict[str, list[str]] = defaultdict(list)
    found = set()
    for path in files:
        for folder in _prefixes(path):
            name = PurePosixPath(folder).name
            if plain(name) in MASK_FOLDERS:
                found.add(folder)
            elif may_hold_masks(name):
                perhaps[folder].append(path)
    return found | {folder for folder, inside in perhaps.items() if _drawn(root, _some(inside))}


def _named(root: Path, files: Sequence[str]) -> set[str]:
    """Return the files with a mask's name that are masks.

    `NAME_mask` beside NAME is a mask whatever it holds. Photos may be called `NAME_label` as well, and anything may be
    called so where no image NAME is: there the content decides.
    """
    stems = {stem_of(path) for path in files}
    names = {path.lower() for path in files}
    found = set()
    for path in files:
        folder, stem = PurePosixPath(path.lower()).parent, stem_of(PurePosixPath(path).name)
        ways = mask_names(stem)
        beside = [(folder / image).as_posix() for image, word in ways if image and word in SURE_MASK_WORDS]
        sure = not _begins_with_mask(stem) and any(image in stems or image in names for image in beside)
        if ways and (sure or _drawn(root, [path])):
            found.add(path)
    return found


def _begins_with_mask(stem: str) -> bool:
    """Return whether a name begins with the word: `mask_1` beside `1` may be two photos."""
    return any(stem.startswith(word) for word in SURE_MASK_WORDS)


def _of_another_suffix(root: Path, files: Sequence[str]) -> set[str]:
    """Return the masks that share folder and stem with a photo."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[stem_of(path)].append(path)
    found: set[str] = set()
    for group in groups.values():
        masks = [path for path in group if _drawn(root, [path])] if len(group) > 1 else []
        if len(masks) < len(group):
            found.update(masks)
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
