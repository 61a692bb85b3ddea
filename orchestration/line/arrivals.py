"""The journal of a production line: every file that ever arrived, its fate, and the place of its bytes.

    data/raw/<line>/arrived/<ab>/<stored>            good images by content and camera's name; versioned by DVC
    data/raw/<line>/arrivals.jsonl                   the report, one JSON object per file; versioned by DVC
    data/raw/<line>/arriving.jsonl                   the batch being taken in; removed when it is complete
    data/quarantine/<line>/<name as it arrived>      bad files, each with <name>.json beside it

Batches count the ingests of a line: 1, 2, … The report holds no times.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from llbnad.data.decode import page_of
from llbnad.data.manifest import paths_of
from llbnad.errors import printable
from llbnad.utils.files import replacing
from orchestration.line.inbox import FileMark
from orchestration.pipeline.paths import ARRIVALS, QUARANTINE, stage_dir

Fate = Literal["raw", "quarantine", "duplicate"]
DIGITS = 64  # of a SHA-256: how the names in arrived/ begin


@dataclass(frozen=True)
class Arrival:
    """One file that arrived. All paths are POSIX."""

    path: str  # relative to the inbox; may hold any character that a file name may hold
    sha256: str
    fate: Fate
    batch: int
    where: str  # path of its bytes, relative to the repository; for a duplicate, the file with the same bytes
    reason: str = ""  # why it is not in raw: not_an_image, unreadable, duplicate
    detail: str = ""


@dataclass(frozen=True)
class Planned:
    """An arrival that is not completed yet, with the mark of the file when it was hashed."""

    arrival: Arrival
    mark: FileMark


@dataclass(frozen=True)
class LineFolders:
    """Where the files of one line are."""

    root: Path
    line: str

    @property
    def folder(self) -> Path:
        """Folder of everything that DVC versions."""
        return self.root / stage_dir("raw", self.line)

    @property
    def arrived(self) -> Path:
        """Folder of good images."""
        return self.folder / "arrived"

    @property
    def report(self) -> Path:
        """File with all arrivals."""
        return self.folder / ARRIVALS

    @property
    def plan(self) -> Path:
        """File with the batch being taken in: the write-ahead journal."""
        return self.folder / "arriving.jsonl"

    @property
    def quarantine(self) -> Path:
        """Folder of bad files."""
        return self.root / QUARANTINE / self.line

    def relative(self, path: Path) -> str:
        """Return `path` relative to the repository, as the report holds it."""
        return path.relative_to(self.root).as_posix()


def read_report(root: Path, line: str) -> list[Arrival]:
    """Read all arrivals of a line in their order. The list is empty if no file ever arrived."""
    return [Arrival(**row) for row in _read(LineFolders(root, line).report)]


def write_report(root: Path, line: str, arrivals: Sequence[Arrival]) -> None:
    """Write the report of a line, in the place of the old report."""
    _write([asdict(arrival) for arrival in arrivals], LineFolders(root, line).report)


def read_plan(root: Path, line: str) -> list[Planned]:
    """Read the arrivals that an ingest has decided on and not completed."""
    rows = _read(LineFolders(root, line).plan)
    return [Planned(Arrival(**row["arrival"]), FileMark(*row["mark"])) for row in rows]


def write_plan(root: Path, line: str, planned: Sequence[Planned]) -> None:
    """Write the decisions on a batch. From here on, this ingest or the next ingest completes it."""
    _write([{"arrival": asdict(one.arrival), "mark": list(one.mark)} for one in planned], LineFolders(root, line).plan)


def last_batch(root: Path, line: str) -> int:
    """Return the number of the newest batch, or 0 if there is none. Only the end of the report is read."""
    path = LineFolders(root, line).report
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 2**20))  # more bytes than any line has, as a path has at most 4096
        lines = stream.read().splitlines()
    return int(json.loads(lines[-1])["batch"]) if lines else 0


def batches(root: Path, line: str) -> dict[str, int]:
    """Return the batch in which each good file first arrived, by its SHA-256, the id of its only or first image."""
    found: dict[str, int] = {}
    for arrival in read_report(root, line):
        if arrival.fate == "raw":
            found.setdefault(arrival.sha256, arrival.batch)
    return found


def batches_of(root: Path, line: str, manifest: pd.DataFrame) -> dict[str, int]:
    """Return the batch in which the file of each image of a manifest first arrived, by image id.

    All pages of a file arrived with it. An image whose file never arrived is left out.
    """
    arrived = batches(root, line)  # arrived/ names a file by its content
    files = {image_id: page_of(root / path)[0].stem[:DIGITS] for image_id, path in paths_of(manifest).items()}
    return {image_id: arrived[file] for image_id, file in files.items() if file in arrived}


def camera_names(root: Path, line: str, manifest: pd.DataFrame) -> dict[str, str]:
    """Return what the camera called the images of a manifest, by image id. Images that never arrived are left out."""
    arrived: dict[str, str] = {}
    for arrival in read_report(root, line):
        if arrival.fate == "raw":
            arrived.setdefault(arrival.sha256, printable(PurePosixPath(arrival.path).name))
    found = {}
    for image_id, path in paths_of(manifest).items():
        file, page = page_of(root / path)
        name = arrived.get(file.stem[:DIGITS])
        if name is not None:
            found[image_id] = name if page is None else f"{name}#{page}"
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    # a new file each time, because the old file may be a link into DVC's cache
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as stream:
        # ASCII, so that names that are not valid text survive as escapes
        stream.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
