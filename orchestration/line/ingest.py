"""Take in what arrived on a production line: good images to raw, bad files to quarantine, doubles into the report.

First it is decided what becomes of each complete file, and the decision is written down (`arriving.jsonl`); then the
files are moved; then the report is extended; then DVC is told. Each step may be repeated: an ingest that was killed
anywhere is completed by the next one, so that every file that ever arrived ends in exactly one of the three places, and
its bytes are on disk at every moment.

    python -m orchestration ingest [LINE…]     without a name: all lines of data/incoming
"""

import errno
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from filelock import BaseFileLock, FileLock, Timeout
from PIL import Image

from llbnad.data.images import load_rgb
from llbnad.errors import ConfigError, DataError
from llbnad.utils.files import file_digest, replacing, write_json
from llbnad.utils.progress import track
from orchestration.line.arrivals import (
    Arrival,
    Places,
    Planned,
    last_batch,
    read_plan,
    read_report,
    write_plan,
    write_report,
)
from orchestration.line.inbox import Mark, look_twice, mark_of, why_not
from orchestration.line.params_entry import add_line, conflict
from orchestration.pipeline.busy import BusyError, retry_when_busy
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import INCOMING, PARAMS

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}  # Pillow's names
LOG = logging.getLogger(__name__)
LONGEST_NAME = 240  # bytes; file systems allow 255, and ".json" is put behind it


class BusyLineError(BusyError):
    """Another ingest of the same line is at work."""


@dataclass(frozen=True)
class Ingested:
    """What one ingest did."""

    line: str
    arrivals: tuple[Arrival, ...]  # of this ingest, with those that a killed one had begun
    waiting: int  # files left in the inbox because they are not complete yet
    unreadable: int = 0  # files left there because this user may not read them

    def count(self, fate: str) -> int:
        """How many files went this way."""
        return sum(arrival.fate == fate for arrival in self.arrivals)

    def __str__(self) -> str:
        counts = f"{self.count('raw')} new images, {self.count('quarantine')} quarantined, "
        left = f"{self.waiting} files not complete yet"
        left += f", {self.unreadable} that cannot be read" if self.unreadable else ""
        return f"{self.line}: {counts}{self.count('duplicate')} duplicates; {left}"


@dataclass(frozen=True)
class _Finding:
    sha256: str
    suffix: str = ""
    reason: str = ""
    detail: str = ""


def ingest(root: Path, line: str, stable_seconds: float, version: Callable[[Path, Sequence[str]], None]) -> Ingested:
    """Take in the complete files of one line.

    Args:
        root: the repository.
        line: folder below data/incoming.
        stable_seconds: a file nobody touched for so long is complete.
        version: told the repository and the paths whose content is to be versioned: `orchestration.pipeline.dvc.add`.

    Raises:
        DataError: the folder's name cannot be a line's, or what the line has is recorded and not on disk.
        ConfigError: the name belongs to another dataset or scenario, or params.yaml is wrong.
        BusyError: another ingest of this line, or another process on its images, is at work for too long.
        DvcError: the images are taken in, but DVC failed to record them; the next ingest tries again.
    """
    if reason := why_not(line):
        raise DataError(f"{INCOMING / line} is no production line: {reason}")
    if reason := conflict(load_params(root / PARAMS), line):
        raise ConfigError(reason)
    places = Places(root, line)
    lock = _lock(root, line)
    try:
        _refuse_missing_record(places)
        begun = _complete(places, version)
        files, waiting = look_twice(root / INCOMING / line, stable_seconds)
        unreadable = 0
        if files:
            planned = _plan(places, files)
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


def _refuse_missing_record(places: Places) -> None:
    """A fresh clone has the hashes of a line and not its images: an ingest would begin a new line in their place."""
    for path in (places.arrived, places.report):
        record = path.with_name(f"{path.name}.dvc")
        if record.exists() and not path.exists():
            raise DataError(
                f"{places.relative(record)} records what line {places.line} has, but {path.name} is not here: "
                f"`dvc checkout {places.relative(record)}` restores it (in a fresh clone, `dvc pull` first)"
            )


def _paths(planned: Sequence[Planned]) -> set[str]:
    return {one.arrival.path for one in planned}


def _plan(places: Places, files: Mapping[str, Mark]) -> list[Planned]:
    """Hash and decode every file and decide where it belongs."""
    inbox = places.root / INCOMING / places.line
    known = {one.sha256: one.where for one in read_report(places.root, places.line) if one.fate != "duplicate"}
    batch = last_batch(places.root, places.line) + 1
    taken: set[str] = set()
    planned = []
    paths = sorted(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        findings = pool.map(lambda path: _examine(inbox, path), paths)
        for path, found in zip(paths, track(findings, f"examine {places.line}", len(paths)), strict=True):
            if found is None:
                continue
            where = known.get(found.sha256)
            if where is not None and (where in taken or _holds(places.root / where, found.sha256)):
                arrival = Arrival(path, found.sha256, "duplicate", batch, where, "duplicate", f"same bytes as {where}")
            elif found.suffix:
                target = places.arrived / found.sha256[:2] / f"{found.sha256}{found.suffix}"
                arrival = Arrival(path, found.sha256, "raw", batch, places.relative(target))
            else:
                where = places.relative(_free_name(places, path, found.sha256, taken))
                arrival = Arrival(path, found.sha256, "quarantine", batch, where, found.reason, found.detail)
            if arrival.fate != "duplicate":
                known[found.sha256] = arrival.where
                taken.add(arrival.where)
            planned.append(Planned(arrival, files[path]))
    return planned


def _examine(inbox: Path, path: str) -> _Finding | None:
    """What a file is; None if it went or cannot be read, which says nothing about its content."""
    file = inbox / path
    try:
        digest = file_digest(file)
        load_rgb(file)
        with Image.open(file) as image:
            kind = image.format or ""
    except DataError as error:
        reason = "not_an_image" if "not an image" in str(error) else "unreadable"
        return _Finding(digest, reason=reason, detail=str(error).replace(str(file), PurePosixPath(path).name))
    except FileNotFoundError:
        return None
    except OSError as error:
        LOG.warning("%s stays in the inbox: %s%s", file, error.strerror, _advice(error, "read"))
        return None
    if kind not in SUFFIXES:
        return _Finding(digest, reason="not_an_image", detail=f"format {kind}; expected {', '.join(SUFFIXES)}")
    return _Finding(digest, SUFFIXES[kind])


def _free_name(places: Places, path: str, digest: str, taken: set[str]) -> Path:
    """A quarantined file keeps its relative name, unless that is taken or too long: then its hash is its name."""
    wanted = places.quarantine / path
    names = [wanted, wanted.with_name(f"{wanted.name}.json")]
    parents = [parent for parent in wanted.parents if parent.is_relative_to(places.quarantine)]
    # the same name may have come before with other bytes, and a folder may have had the name of a file
    blocked = (
        any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in PurePosixPath(path).parts)
        or any(name.exists() or places.relative(name) in taken for name in names)
        or any(parent.is_file() or places.relative(parent) in taken for parent in parents)
        or places.relative(wanted).removesuffix(".json") in taken
    )
    return places.quarantine / digest if blocked else wanted


def _complete(places: Places, version: Callable[[Path, Sequence[str]], None]) -> list[Arrival]:
    """Carry out what is planned; from the beginning if a killed ingest had come only so far."""
    planned = read_plan(places.root, places.line)
    if not planned:
        places.plan.unlink(missing_ok=True)
        return []
    settled = [one.arrival for one in track(planned, f"take in {places.line}") if _settle(places, one)]
    report = read_report(places.root, places.line)
    if settled and settled[0].batch > (report[-1].batch if report else 0):
        report += settled
        write_report(places.root, places.line, report)
    if any(arrival.fate == "raw" for arrival in report):  # without an image there is nothing to train on
        add_line(places.root, places.line)
    paths = [path for path in (places.arrived, places.report) if path.exists()]
    if paths:
        version(places.root, [places.relative(path) for path in paths])
    places.plan.unlink()
    return settled


def _settle(places: Places, planned: Planned) -> bool:
    """Bring one file to its place. False if it stays in the inbox, for another ingest.

    It does if it was changed or taken away after it was hashed, if it may not be moved, or if it is the double of such
    a file.
    """
    arrival = planned.arrival
    source = places.root / INCOMING / places.line / arrival.path
    target = places.root / arrival.where
    unchanged = mark_of(source) == planned.mark
    try:
        if arrival.fate == "duplicate":
            if unchanged and not _holds(target, arrival.sha256):
                return False
            if unchanged:
                source.unlink()
            return True
        if unchanged and _holds(target, arrival.sha256):
            _forget(source, target)  # copied from another file system, then killed
        elif unchanged:
            _move(source, target, arrival.sha256)
    except OSError as error:
        LOG.warning("%s stays in the inbox: %s%s", source, error.strerror, _advice(error, "move"))
        return False
    if not target.exists() or _written_late(source, target, planned.mark):
        return False
    if arrival.fate == "quarantine":
        shown = {key: value for key, value in asdict(arrival).items() if key not in ("where", "fate")}
        write_json({**shown, "line": places.line}, target.with_name(f"{target.name}.json"))
    return True


def _advice(error: OSError, verb: str) -> str:
    return f"; give this user the right to {verb} it" if error.errno in (errno.EACCES, errno.EPERM) else ""


def _move(source: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            if file_digest(temporary) != digest:
                return  # written to after all; the copy is dropped
        _forget(source, target)


def _forget(source: Path, copy: Path) -> None:
    """Remove a file that was copied, or the copy if the file has to stay."""
    try:
        source.unlink()
    except OSError:
        copy.unlink()
        raise


def _written_late(source: Path, target: Path, mark: Mark) -> bool:
    """Whether somebody wrote to the file while it was moved; then it goes back to the inbox."""
    now = mark_of(target)
    if now is None or now.inode != mark.inode or now == mark:
        return False
    target.rename(source.with_name(f"late-{source.name}") if source.exists() else source)
    return True


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
