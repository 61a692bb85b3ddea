"""The way from a source's records to a manifest: every file is hashed and decoded, every unusable file is listed."""

from typing import Any

import pandas as pd

from llbnad.data.intensity import shown
from llbnad.data.manifest import NORMAL, SCHEMA, normalise
from llbnad.data.sources.examine import examine, shows_nothing
from llbnad.data.sources.meanings import by_label, table
from llbnad.data.sources.odd_masks import SHOWN, odd_masks, unused_masks
from llbnad.data.sources.pages import records_of_pages
from llbnad.data.sources.records import Listing, Record, Rejection, Scan
from llbnad.data.sources.survey import survey
from llbnad.errors import DataError, printable
from llbnad.utils.prefetch import each
from llbnad.utils.progress import track


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
        pages, unread = records_of_pages(listing, record)
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
    found = each(lambda one: examine(listing.root, one, surveyed.window), records)
    progress = track(found, "read images", total=len(records))
    for record, finding in zip(records, progress, strict=True):
        if finding.rejection is not None:
            rejected.append(finding.rejection)
            continue
        first = known.setdefault(finding.image_id, record)
        if first is not record:
            rejected.append(_duplicate(first, record, "bytes"))
            continue
        nothing = shows_nothing(finding, surveyed)
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
    in_doubt += odd_masks(shares, {record.path for record in records if record.anomaly_class not in (None, NORMAL)})
    if 2 * len(two_valued) <= len(rows):
        rows = [row for row in rows if row["path"] not in two_valued]
        detail = "holds two grey values only, as a mask does; masks belong into ground_truth/ or are called *_mask"
        if surveyed.window:
            detail += f" (values above 8 bits are read in the window {shown(surveyed.window)}, see intensity)"
        rejected += [Rejection(path, "two_valued", detail) for path in two_valued]
    rejected += unused_masks(records, rows, rejected)
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


def _duplicate(first: Record, double: Record, what: str) -> Rejection:
    detail = f"same {what} as {first.path}"
    if first.anomaly_class != double.anomaly_class:
        detail += f", which is labelled {first.anomaly_class}, not {double.anomaly_class}"
    if first.split != double.split:
        detail += f", which is in {first.split}, not in {double.split}"
    return Rejection(double.path, "duplicate", detail)
