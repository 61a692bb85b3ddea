"""The ingest of a production line: good images go to raw, bad files to quarantine, duplicates only into the report.

An ingest has four steps. It decides the fate of each complete file and writes the decisions down (`arriving.jsonl`). It
moves the files. It extends the report. It tells DVC. Each step may be repeated: if an ingest is killed anywhere, the
next ingest completes it. Every file that ever arrived therefore ends in exactly one of the three places, and its bytes
are on disk at every moment.

    python -m orchestration ingest [LINE…]     without a name: all lines of data/incoming
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from llbnad.config import Files, Pages
from llbnad.data.names import stored_name
from llbnad.errors import ConfigError, DataError
from llbnad.utils.pixel_limit import limit_pixels_of
from llbnad.utils.prefetch import each
from llbnad.utils.progress import track
from orchestration.line.arrivals import (
    Arrival,
    LineFolders,
    Planned,
    last_batch,
    read_plan,
    read_report,
    write_plan,
    write_report,
)
from orchestration.line.examine import examine
from orchestration.line.inbox import FileMark, look_twice, why_not
from orchestration.line.move import free_name, holds, settle
from orchestration.line.params_entry import add_line, conflict
from orchestration.pipeline.busy import BusyError, retry_when_busy
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import INCOMING, PARAMS


class BusyLineError(BusyError):
    """Another ingest of the same line is at work."""


@dataclass(frozen=True)
class Ingested:
    """The result of one ingest."""

    line: str
    arrivals: tuple[Arrival, ...]  # arrivals of this ingest and of a killed ingest that it completed
    waiting: int  # files left in the inbox because they are not complete yet
    unreadable: int = 0  # files left in the inbox because this user may not read them

    def count(self, fate: str) -> int:
        """Return the number of arrivals with this fate."""
        return sum(arrival.fate == fate for arrival in self.arrivals)

    def __str__(self) -> str:
        counts = f"{self.count('raw')} new images, {self.count('quarantine')} quarantined, "
        left = f"{self.waiting} files not complete yet"
        left += f", {self.unreadable} that cannot be read" if self.unreadable else ""
        return f"{self.line}: {counts}{self.count('duplicate')} duplicates; {left}"


def ingest(root: Path, line: str, stable_seconds: float, version: Callable[[Path, Sequence[str]], None]) -> Ingested:
    """Take in the complete files of one line.

    Args:
        root: root of the repository.
        line: folder below data/incoming.
        stable_seconds: time after which an untouched file is complete.
        version: called with the root and the paths to version, such as `orchestration.pipeline.dvc.add`.

    Raises:
        DataError: the folder's name cannot be the name of a line, or the line's images are recorded but not on disk.
        ConfigError: the name belongs to another dataset or scenario, or params.yaml is wrong.
        BusyError: another ingest of this line, or another process on its images, was at work for too long.
        DvcError: the images are taken in, but DVC failed to record them; the next ingest tries again.
    """
    if reason := why_not(line):
        raise DataError(f"{INCOMING / line} is no production line: {reason}")
    params = load_params(root / PARAMS)
    if reason := conflict(params, line):
        raise ConfigError(reason)
    dataset = params.datasets.get(line)
    pages = dataset.pages if isinstance(dataset, Files) else "error"
    limit_pixels_of(dataset or Files())
    places = LineFolders(root, line)
    lock = _lock(root, line)
    try:
        _refuse_missing_record(places)
        begun = _complete(places, version)
        files, waiting = look_twice(root / INCOMING / line, stable_seconds)
        unreadable = 0
        if files:
            planned = _plan(places, files, pages)
            unreadable = sum((root / INCOMING / line / path).exists() for path in set(files) - _paths(planned))
            write_plan(root, line, planned)
        return Ingested(line, (*begun, *_complete(places, version)), waiting, unreadable)
    finally:
        lock.release()


@retry_when_busy
def _lock(root: Path, line: str) -> BaseFileLock:
    """Keep other ingests of the line out until the lock is released."""
    folder = root / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"ingest-{line}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyLineError(f"another ingest of line {line} is at work; it takes in everything complete") from None
    return lock


def _refuse_missing_record(places: LineFolders) -> None:
    """Raise DataError if the line's images are recorded but not on disk.

    A fresh clone has the hashes of a line and not its images. An ingest would begin a new line in their place.
    """
    for path in (places.arrived, places.report):
        record = path.with_name(f"{path.name}.dvc")
        if record.exists() and not path.exists():
            raise DataError(
                f"{places.relative(record)} records what line {places.line} has, but {path.name} is not here: "
                f"`dvc checkout {places.relative(record)}` restores it (in a fresh clone, `dvc pull` first)"
            )


def _paths(planned: Sequence[Planned]) -> set[str]:
    return {one.arrival.path for one in planned}


def _plan(places: LineFolders, files: Mapping[str, FileMark], pages: Pages) -> list[Planned]:
    """Hash and decode every file, and decide on its place."""
    inbox = places.root / INCOMING / places.line
    known = {one.sha256: one.where for one in read_report(places.root, places.line) if one.fate != "duplicate"}
    batch = last_batch(places.root, places.line) + 1
    taken: set[str] = set()
    planned = []
    paths = sorted(files)
    findings = each(lambda path: examine(inbox, path, pages), paths)
    for path, found in zip(paths, track(findings, f"examine {places.line}", len(paths)), strict=True):
        if found is None:
            continue
        where = known.get(found.sha256)
        if where is not None and (where in taken or holds(places.root / where, found.sha256)):
            arrival = Arrival(path, found.sha256, "duplicate", batch, where, "duplicate", f"same bytes as {where}")
        elif found.suffix:
            name = stored_name(found.sha256, path, found.suffix)
            target = places.arrived / found.sha256[:2] / name
            arrival = Arrival(path, found.sha256, "raw", batch, places.relative(target))
        else:
            where = places.relative(free_name(places, path, found.sha256, taken))
            arrival = Arrival(path, found.sha256, "quarantine", batch, where, found.reason, found.detail)
        if arrival.fate != "duplicate":
            known[found.sha256] = arrival.where
            taken.add(arrival.where)
        planned.append(Planned(arrival, files[path]))
    return planned


def _complete(places: LineFolders, version: Callable[[Path, Sequence[str]], None]) -> list[Arrival]:
    """Carry out the planned batch, if there is one. Steps that a killed ingest finished are repeated without harm."""
    planned = read_plan(places.root, places.line)
    if not planned:
        places.plan.unlink(missing_ok=True)
        return []
    settled = [one.arrival for one in track(planned, f"take in {places.line}") if settle(places, one)]
    report = read_report(places.root, places.line)
    if settled and settled[0].batch > (report[-1].batch if report else 0):
        report += settled
        write_report(places.root, places.line, report)
    if any(arrival.fate == "raw" for arrival in report):  # a line without an image has nothing to train on
        add_line(places.root, places.line)
    paths = [path for path in (places.arrived, places.report) if path.exists()]
    if paths:
        version(places.root, [places.relative(path) for path in paths])
    places.plan.unlink()
    return settled
