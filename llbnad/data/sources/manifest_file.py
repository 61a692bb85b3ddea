"""A manifest file: a CSV or JSON-lines file that names images, one per row.

| column  | meaning                                                                                                  |
|---------|----------------------------------------------------------------------------------------------------------|
| `path`  | image file, relative to the folder of the data set; the only column that is needed                       |
| `label` | `good`, `ok`, `normal` …: normal; `bad`, `nok` …: a defect; any other text: its class; empty: unlabelled |
| `split` | `train`, `test`, `validation` (held out) or empty                                                        |
| `mask`  | mask file, relative like `path`; several are joined by `|`, or stand in rows of their own                |
| `group` | name of the physical item: all images of one item share it                                               |

Each row that cannot be used is listed with its number, and stops no other one. Rows of one image that contradict each
other are all left out. `llbnad.data.sources.manifest_rows` reads the file.
"""

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llbnad.config import ManifestDataset
from llbnad.data.manifest import NORMAL
from llbnad.data.masks import SEPARATOR, join_masks
from llbnad.data.sources.folder_names import (
    HELD_OUT,
    HELD_OUT_BESIDE_A_SPLIT,
    SPLITS,
    hinted_label,
    label_of,
    plain,
)
from llbnad.data.sources.manifest_rows import Row, read_rows
from llbnad.data.sources.meanings import Meaning, meaning_of
from llbnad.data.sources.records import Listing, Record, Rejection
from llbnad.errors import DataError

BAD_ROW = "bad_row"
SHOWN = 20  # labels in the notes
UNLABELLED = frozenset({"unlabelled", "unlabeled", "unknown", "?", "-"})
SAY_NOTHING = re.compile(r"[+-]?[\d.,]+|true|false|yes|no|y|n|t|f")  # labels that may mean either


@dataclass(frozen=True)
class _Image:
    """One image as its row names it."""

    row: int
    path: str
    text: str  # its label as it is written
    label: str | None
    split: str | None
    held_out: bool
    masks: tuple[str, ...]
    group: str | None


def records(dataset: ManifestDataset, root: Path) -> Listing:
    """Return the images that the manifest file names.

    Raises:
        DataError: the file is missing, not text, without a column `path`, or outside of `root`.
    """
    if Path(dataset.file).is_absolute() or ".." in Path(dataset.file).parts:
        raise DataError(f"file is {dataset.file!r}; expected the name of a file inside the root {root}")
    rows, unread = read_rows(root / dataset.file)
    images: dict[str, list[_Image]] = defaultdict(list)
    rejected: list[Rejection] = []
    for row in rows:
        try:
            image = _image(row, root)
        except DataError as error:
            rejected.append(Rejection(_shown_path(row) or dataset.file, BAD_ROW, f"row {row.number}: {error}"))
        else:
            images[image.path].append(image)
    found = []
    for path, its in images.items():
        reason = _why_not(root, its)
        if reason is not None:
            rejected.append(Rejection(path, *reason))
            lost = sorted({mask for row in its for mask in row.masks})
            rejected += [Rejection(mask, "mask_without_image", f"its image {path} is left out") for mask in lost]
            continue
        masks, without = _masks(root, its)
        rejected += without
        first = its[0]
        found.append(
            Record(path, dataset.category, first.group or path, masks, anomaly_class=first.label, split=first.split)
        )
    doubts = [f"column {name} of {dataset.file} is not read" for name in unread] + _torn_groups(found)
    taken = [images[record.path][0] for record in found]
    meanings = _meanings(taken)
    return Listing(root, found, rejected, _notes(dataset.file, len(rows), meanings), doubts, dataset, meanings)


def _image(row: Row, root: Path) -> _Image:
    """Return what a row says. Raise DataError, without the row's number, if it says nothing or nonsense."""
    if row.trouble:
        raise DataError(row.trouble)
    if not row.cells.get("path"):
        raise DataError("path is empty")
    path = _inside("path", row.cells["path"][0], root)
    masks = [part.strip() for text in row.cells.get("mask", []) for part in text.split(SEPARATOR)]
    cells = {name: " ".join(row.cells.get(name, [])) for name in ("label", "split", "group")}
    for name, text in cells.items():
        if not text.isprintable():
            raise DataError(f"{name} is {text[:80]!r}; expected a text without control characters")
    split = plain(cells["split"])
    held_out = split in HELD_OUT or split in HELD_OUT_BESIDE_A_SPLIT
    if split and split not in SPLITS and not held_out:
        raise DataError(f"split is {cells['split']!r}; expected train, test, validation or empty")
    drawn = tuple(_inside("mask", mask, root) for mask in masks if mask)
    if path in drawn:
        raise DataError(f"mask is the image itself, {path}; expected another file, or empty")
    return _Image(
        row.number,
        path,
        cells["label"],
        _label(cells["label"]),
        SPLITS.get(split),
        held_out,
        drawn,
        cells["group"] or None,
    )


def _label(text: str) -> str | None:
    label = text.lower()
    if not label or label in UNLABELLED:
        return None
    if SAY_NOTHING.fullmatch(label):
        raise DataError(f"label is {text!r}, which may mean either; expected good, bad, the name of a defect, or empty")
    return label_of(label) or (NORMAL if hinted_label(label) == NORMAL else label)


def _inside(column: str, text: str, root: Path) -> str:
    """Return a path relative to `root`, POSIX. Raise DataError if it leads out of `root`."""
    path = text.replace("\\", "/")
    impossible = "\0" in path or re.match(r"[A-Za-z]:", path) is not None
    if path.startswith("/") and not impossible:
        path = posixpath.relpath(path, posixpath.normpath(root.absolute().as_posix()))
    path = path if impossible else posixpath.normpath(path)
    if impossible or path in (".", "..") or path.startswith("../"):
        raise DataError(f"{column} is {text!r}; expected a file inside {root}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False


def _why_not(root: Path, rows: Sequence[_Image]) -> tuple[str, str] | None:
    """Return reason and detail why an image of these rows is left out, or None if it is not."""
    first, numbers = rows[0], ", ".join(str(row.row) for row in rows)
    for column in ("label", "split", "held_out", "group"):
        values = list(dict.fromkeys(getattr(row, column) for row in rows))
        if len(values) > 1:
            told = " and ".join("empty" if value is None else str(value) for value in values)
            name = "split" if column == "held_out" else column
            return BAD_ROW, f"rows {numbers} contradict each other: their {name} is {told}"
    if not _is_file(root / first.path):
        return "missing", f"row {numbers}: {root / first.path} is not a file"
    if first.held_out:
        return "held_out", f"row {numbers}: images for validation are neither trained nor tested on"
    return None


def _masks(root: Path, rows: Sequence[_Image]) -> tuple[str | None, list[Rejection]]:
    """Return the joined masks of an image, and the rejections of those that it cannot use, or of a doubled row."""
    masks = sorted({mask for row in rows for mask in row.masks})
    numbers = ", ".join(str(row.row) for row in rows)
    rejected = []
    if len(rows) > len({row.masks for row in rows}):  # rows with another mask each say something new
        rejected.append(Rejection(rows[0].path, "duplicate", f"rows {numbers} say the same; the image is taken once"))
    if rows[0].label == NORMAL and masks:
        detail = f"row {numbers}: its image is normal and has no defect to draw"
        return None, rejected + [Rejection(mask, "mask_unused", detail) for mask in masks]
    missing = [mask for mask in masks if not _is_file(root / mask)]
    if missing:
        detail = f"row {numbers}: a mask of {rows[0].path} is not there"
        others = [Rejection(mask, "mask_unused", detail) for mask in masks if mask not in missing]
        return None, rejected + others + [Rejection(mask, "mask_missing", detail) for mask in missing]
    return join_masks(masks), rejected


def _torn_groups(found: Sequence[Record]) -> list[str]:
    """Return one line per group whose images are in several splits: a detector would be tested on what it learnt."""
    splits: dict[str, set[str | None]] = defaultdict(set)
    for record in found:
        splits[record.sample_id].add(record.split)
    return [
        f"group {group} is in {' and in '.join(sorted(str(split) for split in its if split))}"
        + (", and some of its images are in no split" if None in its else "")
        for group, its in sorted(splits.items())
        if len(its) > 1
    ]


def _meanings(taken: Sequence[_Image]) -> list[Meaning]:
    """Return what each label was taken for."""
    counts = Counter((image.text or "(empty)", meaning_of(image.label, image.split)) for image in taken)
    return [Meaning(f"label {text}", count, meaning) for (text, meaning), count in sorted(counts.items())]


def _notes(file: str, rows: int, meanings: Sequence[Meaning]) -> list[str]:
    """Return how many rows and images there are, and the meanings as lines to print."""
    lines = [f"{one.place}: {one.images} images, {one.meaning}" for one in meanings]
    more = [f"and {len(lines) - SHOWN} labels more"] if len(lines) > SHOWN else []
    return [f"{file}: {rows} rows, {sum(one.images for one in meanings)} images", *lines[:SHOWN], *more]


def _shown_path(row: Row) -> str:
    return " ".join(row.cells.get("path", []))
