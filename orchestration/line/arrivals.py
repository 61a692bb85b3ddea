"""A production line's journal: every file that ever arrived, what became of it, and where its bytes are.

    data/raw/<line>/arrived/<ab>/<sha256><suffix>    good images by content; DVC's
    data/raw/<line>/arrivals.jsonl                   the report, one JSON object per file; DVC's
    data/raw/<line>/arriving.jsonl                   the batch being taken in; gone when it is complete
    data/quarantine/<line>/<name as it arrived>      bad files, each with <name>.json beside it

Batches count the ingests of a line, 1, 2, …; the report holds no times.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llbnad.utils.files import replacing
from orchestration.line.inbox import Mark
from orchestration.pipeline.paths import QUARANTINE, stage_dir

Fate = Literal["raw", "quarantine", "duplicate"]


@dataclass(frozen=True)
class Arrival:
    """One file that arrived. All paths are POSIX."""

    path: str  # relative to the inbox; may hold anything that a file's name may
    sha256: str
    fate: Fate
    batch: int
    where: str  # of its bytes, relative to the repository; a duplicate's are those of the file it doubles
    reason: str = ""  # why it is not in raw: not_an_image, unreadable, duplicate
    detail: str = ""


@dataclass(frozen=True)
class Planned:
    """An arrival on its way, with the file as it was when it was hashed."""

    arrival: Arrival
    mark: Mark


@dataclass(frozen=True)
class Places:
    """Where the files of one line are."""

    root: Path
    line: str

    @property
    def folder(self) -> Path:
        """Everything versioned."""
        return self.root / stage_dir("raw", self.line)

    @property
    def arrived(self) -> Path:
        """Good images."""
        return self.folder / "arrived"

    @property
    def report(self) -> Path:
        """All arrivals."""
        return self.folder / "arrivals.jsonl"

    @property
    def plan(self) -> Path:
        """The write-ahead journal."""
        return self.folder / "arriving.jsonl"

    @property
    def quarantine(self) -> Path:
        """Bad files."""
        return self.root / QUARANTINE / self.line

    def relative(self, path: Path) -> str:
        """A path as the report has it."""
        return path.relative_to(self.root).as_posix()


def read_report(root: Path, line: str) -> list[Arrival]:
    """All arrivals of a line in order; empty if nothing ever arrived."""
    return [Arrival(**row) for row in _read(Places(root, line).report)]


def write_report(root: Path, line: str, arrivals: Sequence[Arrival]) -> None:
    """Replace the report."""
    _write([asdict(arrival) for arrival in arrivals], Places(root, line).report)


def read_plan(root: Path, line: str) -> list[Planned]:
    """Read what an ingest had decided and not completed."""
    rows = _read(Places(root, line).plan)
    return [Planned(Arrival(**row["arrival"]), Mark(*row["mark"])) for row in rows]


def write_plan(root: Path, line: str, planned: Sequence[Planned]) -> None:
    """Commit to a batch: from here on it will be completed, by whichever ingest comes next."""
    _write([{"arrival": asdict(one.arrival), "mark": list(one.mark)} for one in planned], Places(root, line).plan)


def last_batch(root: Path, line: str) -> int:
    """Number of the newest batch, 0 if there is none. Reads the report's end only."""
    path = Places(root, line).report
    if not path.exists():
        return 0
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 2**20))  # longer than any line: a path has 4096 bytes
        lines = stream.read().splitlines()
    return int(json.loads(lines[-1])["batch"]) if lines else 0


def batches(root: Path, line: str) -> dict[str, int]:
    """The batch in which each good image (by id) first arrived."""
    found: dict[str, int] = {}
    for arrival in read_report(root, line):
        if arrival.fate == "raw":
            found.setdefault(arrival.sha256, arrival.batch)
    return found


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    # a new file each time: DVC links the old one into its cache
    with replacing(path) as temporary, temporary.open("w", encoding="ascii") as stream:
        # ASCII, so that names which are no valid text survive as escapes
        stream.writelines(json.dumps(row, sort_keys=True) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())
