"""Records: the files that a source names, those it refuses, and what was read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from llbnad.config import Files
from llbnad.data.sources.meanings import Meaning, table

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
