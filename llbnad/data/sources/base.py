"""The way from a source's records to a manifest: every file is hashed and decoded, every unusable file is listed."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llbnad.data.images import count_values, load_rgb
from llbnad.data.manifest import SCHEMA, normalise
from llbnad.data.masks import misfit, split_masks
from llbnad.errors import DataError
from llbnad.utils.files import file_digest
from llbnad.utils.progress import track


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
    # missing, unreadable, duplicate, constant, two_valued, mask_missing, mask_unreadable, mask_shape,
    # mask_without_image, mask_unused, or the source's
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


@dataclass(frozen=True)
class Scan:
    """The usable images, and a report on the rejected files."""

    manifest: pd.DataFrame
    rejected: pd.DataFrame  # path, reason, detail; sorted by path
    notes: Sequence[str] = ()  # of the source
    doubts: Sequence[str] = ()  # of the source


@dataclass(frozen=True)
class _Finding:
    image_id: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: str = ""  # digest of the decoded pixels
    values: int = 0  # distinct grey values, 3 for more
    rejection: Rejection | None = None
    trouble: Sequence[Rejection] = ()  # with its mask


def scan(listing: Listing) -> Scan:
    """Hash and decode the file of every record, and return the usable images.

    An image that is missing, unreadable, a duplicate or constant is left out and listed with the reason. Two files are
    duplicates if their bytes or their pixels are equal; the first path is kept. The report says so if duplicates differ
    in label or split, because this is a mistake in the data set. Files of two grey values, if they are fewer than
    half, are masks that nobody named so, and are left out as well. An image whose mask is missing, unreadable or of
    another aspect ratio stays without a mask; all of its masks are listed.

    Raises:
        DataError: no image is usable.
    """
    records = sorted(listing.records, key=lambda record: record.path)
    rejected = list(listing.rejected)
    known: dict[str, Record] = {}
    pixels: dict[str, Record] = {}
    rows: list[dict[str, Any]] = []
    two_valued: set[str] = set()  # paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda one: _examine(listing.root, one), records)
        progress = track(found, "read images", total=len(records))
        for record, finding in zip(records, progress, strict=True):
            if finding.rejection is not None:
                rejected.append(finding.rejection)
                continue
            first = known.setdefault(finding.image_id, record)
            if first is not record:
                rejected.append(_duplicate(first, record, "bytes"))
                continue
            first = pixels.setdefault(finding.pixels, record)
            if first is not record:
                rejected.append(_duplicate(first, record, "pixels"))
                continue
            if finding.values == 1:
                rejected.append(Rejection(record.path, "constant", "all of its pixels have one value"))
                continue
            if finding.values == 2:
                two_valued.add(record.path)
            rejected += finding.trouble
            mask = None if finding.trouble else record.mask_path
            rows.append({**vars(record), "mask_path": mask, "image_id": finding.image_id,
                         "width": finding.size[0], "height": finding.size[1]})  # fmt: skip
    if 2 * len(two_valued) < len(rows):
        rows = [row for row in rows if row["path"] not in two_valued]
        detail = "holds two grey values only, as a mask does; masks belong into ground_truth/ or are called *_mask"
        rejected += [Rejection(path, "two_valued", detail) for path in two_valued]
    rejected += _unused_masks(records, rows, rejected)
    if not rows:
        reasons = "; ".join(rejection.detail for rejection in rejected[:3])
        raise DataError(
            f"no image under {listing.root} is usable; {len(records)} are listed: {reasons or 'none was found'}"
        )
    told = [{name: _printable(text) for name, text in vars(rejection).items()} for rejection in rejected]
    report = pd.DataFrame(told, columns=["path", "reason", "detail"])
    report = report.sort_values(["path", "reason"], ignore_index=True)
    notes, doubts = (tuple(map(_printable, lines)) for lines in (listing.notes, listing.doubts))
    return Scan(normalise(pd.DataFrame(rows)[SCHEMA.names]), report, notes, doubts)


def _printable(text: str) -> str:
    """Return a text whose bytes that are not UTF-8, as names may hold, are written out."""
    return text.encode(errors="backslashreplace").decode()


def _examine(root: Path, record: Record) -> _Finding:
    path = root / record.path
    try:
        record.path.encode()
    except UnicodeEncodeError:
        detail = f"{record.path}: its name is not UTF-8; rename the file"
        return _Finding(rejection=Rejection(record.path, "unreadable", detail))
    try:
        image = load_rgb(path)
        pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        trouble = _checked_masks(root, record, image.size)
        return _Finding(file_digest(path), image.size, pixels, count_values(image), trouble=trouble)
    except FileNotFoundError:
        detail = f"{path} is listed but not there"
        return _Finding(rejection=Rejection(record.path, "missing", detail))
    except (DataError, OSError) as error:
        return _Finding(rejection=Rejection(record.path, "unreadable", str(error)))


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
                detail = (
                    f"another mask of {record.path} is of no use, and this one alone would show a part of the defect"
                )
                found.append(Rejection(mask, "mask_unused", detail))
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
