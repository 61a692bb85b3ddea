"""The way from a source's records to a manifest: every file is hashed and decoded, every unusable file is listed."""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from llbnad.config import Files, Window
from llbnad.data.decode import image_digest, pages_of
from llbnad.data.drawn import is_black_and_white
from llbnad.data.images import CLIPPED, count_values, load_picture
from llbnad.data.intensity import shown
from llbnad.data.manifest import NORMAL, SCHEMA, normalise
from llbnad.data.masks import join_masks, marked, misfit, split_masks
from llbnad.data.names import content_path
from llbnad.data.sources.meanings import Meaning, by_label, table
from llbnad.data.sources.survey import Survey, survey
from llbnad.errors import DataError, PagesError, printable
from llbnad.utils.progress import track

SHOWN = 3  # examples in a line
MUCH = 0.75  # share of an image's pixels that is more than a defect
PART = "another mask of {} is of no use, and this one alone would show a part of the defect"


@dataclass(frozen=True)
class Record:
    """An image as its source describes it; paths are POSIX, relative to the listing's root."""

    path: str
    category: str
    sample_id: str
    mask_path: str | None = None  # several are joined (`llbnad.data.masks.join_masks`)
    view: str | None = None
    anomaly_class: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Rejection:
    """An image file or a mask file that does not take part, and why."""

    path: str
    # missing, unreadable, pages, duplicate, constant, clipped, two_valued, mask_missing, mask_unreadable, mask_shape,
    # mask_without_image, mask_unused, mask_of_pages, or the source's
    reason: str
    detail: str


@dataclass(frozen=True)
class Listing:
    """The images that a source found and the files that it rejected."""

    root: Path
    records: Sequence[Record]
    rejected: Sequence[Rejection] = ()
    notes: Sequence[str] = ()  # what the source took folders for, one line each
    doubts: Sequence[str] = ()  # what a person should decide, one line each
    files: Files = field(default_factory=Files)  # how its files are read
    meanings: Sequence[Meaning] = ()  # the same as a table; none: by label


@dataclass(frozen=True)
class Scan:
    """The usable images, and a report on the rejected files."""

    manifest: pd.DataFrame
    rejected: pd.DataFrame  # path, reason, detail; sorted by path
    notes: Sequence[str] = ()  # of the source
    doubts: Sequence[str] = ()  # of the source
    pixel_notes: Sequence[str] = ()  # the window that images above 8 bits are read by, and what it does to them
    folders: pd.DataFrame = field(default_factory=lambda: table(()))  # place, images, meaning (`Meaning`)


@dataclass(frozen=True)
class _Finding:
    image_id: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: str = ""  # digest of the decoded pixels
    values: int = 0  # distinct grey values, 3 for more
    black_and_white: bool = False  # nearly, with little between
    deep: bool = False  # more than 8 bits, read by the window
    outside: float = 0.0  # share of the values outside the window
    cut_to_8_bits: bool = False
    rejection: Rejection | None = None
    trouble: Sequence[Rejection] = ()  # with its mask
    marked: float | None = None  # share of the pixels that its masks mark


def scan(listing: Listing) -> Scan:
    """Hash and decode the file of every record, and return the usable images.

    An image that is missing, unreadable, a duplicate or constant is left out and listed with the reason. Two files are
    duplicates if their bytes or their pixels are equal; the first path is kept. The report says so if duplicates differ
    in label or split, because this is a mistake in the data set. Files of two grey values, if they are at most
    half, are masks that nobody named so, and are left out as well. An image whose mask is missing, unreadable or of
    another aspect ratio stays without a mask; all of its masks are listed.

    Images above 8 bits are read by one window, which the setting `intensity` gives or, with `auto`, the values of all
    of them (`llbnad.data.intensity`). It stands in their rows, and a note says it. An image with nearly all of its
    values outside the window is left out. A file of several pages is left out, or stands for one image or several
    (`llbnad.data.decode`), as the setting `pages` says, and so does a mask of several pages.

    Raises:
        DataError: no image is usable.
    """
    rejected = list(listing.rejected)
    records = []
    for record in sorted(listing.records, key=lambda record: record.path):
        pages, unread = _pages(listing, record)
        records += pages
        rejected += unread
    surveyed = survey([listing.root / record.path for record in records], listing.files.intensity)
    known: dict[str, Record] = {}
    pixels: dict[str, Record] = {}
    rows: list[dict[str, Any]] = []
    two_valued: set[str] = set()  # paths
    nearly: list[str] = []  # paths of other images that may be masks
    shares: dict[str, float] = {}  # of the pixels that are marked, by path
    cut = 0  # images
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda one: _examine(listing.root, one, surveyed.window), records)
        progress = track(found, "read images", total=len(records))
        for record, finding in zip(records, progress, strict=True):
            if finding.rejection is not None:
                rejected.append(finding.rejection)
                continue
            first = known.setdefault(finding.image_id, record)
            if first is not record:
                rejected.append(_duplicate(first, record, "bytes"))
                continue
            nothing = _shows_nothing(finding, surveyed)
            if nothing and finding.deep:  # no double: the window made different values equal
                rejected.append(Rejection(record.path, *nothing))
                continue
            first = pixels.setdefault(finding.pixels, record)
            if first is not record:
                rejected.append(_duplicate(first, record, "pixels"))
                continue
            if nothing:
                rejected.append(Rejection(record.path, *nothing))
                continue
            if finding.values == 2:
                two_valued.add(record.path)
            elif finding.black_and_white:
                nearly.append(record.path)
            rejected += finding.trouble
            if finding.marked is not None:
                shares[record.path] = finding.marked
            mask = None if finding.trouble else record.mask_path
            black, white = surveyed.window if finding.deep and surveyed.window else (None, None)
            rows.append({**vars(record), "mask_path": mask, "image_id": finding.image_id, "black": black,
                         "white": white, "width": finding.size[0], "height": finding.size[1]})  # fmt: skip
            cut += finding.cut_to_8_bits
    in_doubt = list(listing.doubts)
    if len(rows) / 2 < len(two_valued) < len(rows):
        in_doubt.append(f"{len(two_valued)} of {len(rows)} images hold two grey values only: are they masks?")
    if nearly:
        names = ", ".join(nearly[:SHOWN])
        in_doubt.append(f"{len(nearly)} of {len(rows)} images are nearly black and white: are they masks? {names}")
    in_doubt += _odd_masks(shares, {record.path for record in records if record.anomaly_class not in (None, NORMAL)})
    if 2 * len(two_valued) <= len(rows):
        rows = [row for row in rows if row["path"] not in two_valued]
        detail = "holds two grey values only, as a mask does; masks belong into ground_truth/ or are called *_mask"
        if surveyed.window:
            detail += f" (values above 8 bits are read in the window {shown(surveyed.window)}, see intensity)"
        rejected += [Rejection(path, "two_valued", detail) for path in two_valued]
    rejected += _unused_masks(records, rows, rejected)
    if not rows:
        reasons = "; ".join(rejection.detail for rejection in rejected[:3])
        raise DataError(
            f"no image under {listing.root} is usable; {len(records)} are listed: {reasons or 'none was found'}"
        )
    told = [{name: printable(text) for name, text in vars(rejection).items()} for rejection in rejected]
    report = pd.DataFrame(told, columns=["path", "reason", "detail"])
    report = report.sort_values(["path", "reason"], ignore_index=True)
    pixel_notes = surveyed.notes()
    if cut:
        pixel_notes.append(
            f"{cut} colour images of 16 bits are read by their upper 8 bits: 12 bits of colour lose 4 of them"
        )
    notes, doubts, told_of_pixels = (tuple(map(printable, lines)) for lines in (listing.notes, in_doubt, pixel_notes))
    manifest = normalise(pd.DataFrame(rows)[SCHEMA.names])
    folders = table(listing.meanings or by_label((one.anomaly_class, one.split) for one in listing.records))
    return Scan(manifest, report, notes, doubts, told_of_pixels, folders)


def _pages(listing: Listing, record: Record) -> tuple[list[Record], list[Rejection]]:
    """Return a record for each image that a record's file stands for, and why a mask of it is not read, if so.

    Page 2 of a mask belongs to page 2 of its image. All pages of a mask belong to an image of one page.
    """
    wanted = listing.files.pages
    images = [_name(record.path, page) for page in pages_of(listing.root / record.path, wanted)]
    masks, rejected = [], []
    for path in split_masks(record.mask_path):
        its = [_name(path, page) for page in pages_of(listing.root / path, wanted)]
        if images == [record.path] or len(its) == len(images):
            masks.append(its)
        else:
            detail = f"a mask of {len(its)} page(s), and {record.path} has {len(images)}: give each page its own"
            rejected.append(Rejection(path, "mask_of_pages", detail))
    if rejected:
        lost = sorted(set(split_masks(record.mask_path)) - {one.path for one in rejected})
        rejected += [Rejection(mask, "mask_unused", PART.format(record.path)) for mask in lost]
        masks = []
    if images == [record.path]:
        return [replace(record, mask_path=join_masks([page for its in masks for page in its]))], rejected
    alone = record.sample_id in (record.path, content_path(record.path))
    pages = []
    for number, name in enumerate(images):
        mask = join_masks([its[number] for its in masks])
        sample = content_path(name) if alone else record.sample_id
        pages.append(replace(record, path=name, sample_id=sample, mask_path=mask))
    return pages, rejected


def _name(path: str, page: Path) -> str:
    """Return the path of a page of the file `path`, relative as it is."""
    return path[: len(path) - len(Path(path).name)] + page.name


def _shows_nothing(finding: _Finding, surveyed: Survey) -> tuple[str, str] | None:
    """Return reason and detail why an image is of no use: it is constant, or outside the window."""
    by = f" in the window {shown(surveyed.window)}" if finding.deep and surveyed.window else ""
    hint = f"{by}: if it shows something, set intensity to a window [low, high] that holds its values" if by else ""
    if finding.outside > CLIPPED:
        return "clipped", f"{finding.outside:.1%} of its values are not{hint}"
    if finding.values == 1:
        return "constant", f"all of its pixels have one value{hint}"
    return None


def _examine(root: Path, record: Record, window: Window | None) -> _Finding:
    path = root / record.path
    try:
        record.path.encode()
    except UnicodeEncodeError:
        detail = f"{record.path}: its name is not UTF-8; rename the file"
        return _Finding(rejection=Rejection(record.path, "unreadable", detail))
    try:
        picture = load_picture(path, window)
        image = picture.image
        pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        trouble = _checked_masks(root, record, image.size)
        share = None
        if record.mask_path and not trouble:
            row = {**vars(record), "width": image.width, "height": image.height}
            share = float(marked(row, root, image.size).mean())
        drawn = is_black_and_white(image.convert("L").histogram())
        return _Finding(image_digest(path), image.size, pixels, count_values(image), drawn, picture.deep,
                        picture.outside, picture.cut_to_8_bits, trouble=trouble, marked=share)  # fmt: skip
    except FileNotFoundError:
        detail = f"{path} is listed but not there"
        return _Finding(rejection=Rejection(record.path, "missing", detail))
    except PagesError as error:
        return _Finding(rejection=Rejection(record.path, "pages", str(error)))
    except (DataError, OSError) as error:
        return _Finding(rejection=Rejection(record.path, "unreadable", str(error)))


def _odd_masks(shares: Mapping[str, float], defects: Collection[str]) -> Iterator[str]:
    """Yield a line on the masks that mark nearly everything, and one on those that mark nothing of a defect."""
    much = sorted(path for path, share in shares.items() if share > MUCH)
    if much:
        yield (
            f"the masks of {len(much)} of {len(shares)} images mark more than {MUCH:.0%} of them: are black and white "
            f"exchanged? {', '.join(much[:SHOWN])}"
        )
    nothing = sorted(path for path, share in shares.items() if share == 0 and path in defects)
    if nothing:
        yield (
            f"the masks of {len(nothing)} of {len(shares)} images mark nothing, though a defect is named: "
            f"{', '.join(nothing[:SHOWN])}"
        )


def _duplicate(first: Record, double: Record, what: str) -> Rejection:
    detail = f"same {what} as {first.path}"
    if first.anomaly_class != double.anomaly_class:
        detail += f", which is labelled {first.anomaly_class}, not {double.anomaly_class}"
    if first.split != double.split:
        detail += f", which is in {first.split}, not in {double.split}"
    return Rejection(double.path, "duplicate", detail)


def _unused_masks(
    records: Sequence[Record], rows: Sequence[dict[str, Any]], rejected: Sequence[Rejection]
) -> list[Rejection]:
    """Return the masks of records that nobody uses and nobody has listed."""
    used = {mask for row in rows for mask in split_masks(row["mask_path"])}
    kept, listed = {row["path"] for row in rows}, {rejection.path for rejection in rejected}
    found = []
    for record in records:
        for mask in sorted(set(split_masks(record.mask_path)) - used - listed):
            if record.path in kept:
                found.append(Rejection(mask, "mask_unused", PART.format(record.path)))
            else:
                found.append(Rejection(mask, "mask_without_image", f"its image {record.path} is left out"))
    return found


def _checked_masks(root: Path, record: Record, size: tuple[int, int]) -> list[Rejection]:
    """Return why masks of an image of this width and height are of no use; empty if all are, or if there is none."""
    found = []
    for mask in split_masks(record.mask_path):
        try:
            mask.encode()
            reason = misfit(root / record.path, root / mask, size)
            if reason is not None:
                found.append(Rejection(mask, "mask_shape", f"the mask of {record.path}: {reason}"))
        except FileNotFoundError:
            found.append(Rejection(mask, "mask_missing", f"the mask of {record.path} is not there"))
        except UnicodeEncodeError:
            found.append(Rejection(mask, "mask_unreadable", f"{mask}: its name is not UTF-8; rename the file"))
        except (DataError, OSError) as error:
            found.append(Rejection(mask, "mask_unreadable", str(error)))
    return found
