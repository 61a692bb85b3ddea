"""The move of a file from the inbox to its place, with its bytes on disk at every moment.

Each step may be repeated. No step is taken for granted: each time, the files on disk are examined again.
"""

import errno
import os
import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from llbnad.utils.files import file_digest, replacing, write_json
from orchestration.line.arrivals import LineFolders, Planned
from orchestration.line.inbox import FileMark, mark_of, warn_that_it_stays
from orchestration.pipeline.paths import INCOMING

LONGEST_NAME = 240  # bytes; file systems allow 255, and ".json" is appended


def settle(places: LineFolders, planned: Planned) -> bool:
    """Move one file to its place. Return False if the file is left for another ingest.

    It is left if it was changed or removed after it was hashed, if this user may not move it, or if it is a duplicate
    and the bytes at the first file's place are not there.
    """
    arrival = planned.arrival
    source = places.root / INCOMING / places.line / arrival.path
    target = places.root / arrival.where
    unchanged = mark_of(source) == planned.mark
    try:
        if arrival.fate == "duplicate":
            return not unchanged or _remove_double(source, target, arrival.sha256)
        if unchanged:
            _bring(source, target, arrival.sha256)
    except OSError as error:
        warn_that_it_stays(source, error, "move")
        return False
    if not target.exists() or _written_late(source, target, planned.mark):
        return False
    if arrival.fate == "quarantine":
        shown = {key: value for key, value in asdict(arrival).items() if key not in ("where", "fate")}
        write_json({**shown, "line": places.line}, target.with_name(f"{target.name}.json"))
    return True


def free_name(places: LineFolders, path: str, digest: str, taken: set[str]) -> Path:
    """Return the place of a bad file in the quarantine.

    The file keeps its relative name. If that name is taken or too long, its hash is its name.
    """
    wanted = places.quarantine / path
    names = [wanted, wanted.with_name(f"{wanted.name}.json")]
    parents = [parent for parent in wanted.parents if parent.is_relative_to(places.quarantine)]
    # an earlier file may have had the same name with other bytes, and a folder may have the name of a file
    blocked = (
        any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in PurePosixPath(path).parts)
        or any(name.exists() or places.relative(name) in taken for name in names)
        or any(parent.is_file() or places.relative(parent) in taken for parent in parents)
        or places.relative(wanted).removesuffix(".json") in taken
    )
    return places.quarantine / digest if blocked else wanted


def holds(path: Path, digest: str) -> bool:
    """Return whether the file at `path` has this SHA-256."""
    return path.is_file() and file_digest(path) == digest


def _remove_double(source: Path, first: Path, digest: str) -> bool:
    """Remove a file whose bytes are at `first`. Return False, and leave the file, if they are not there."""
    if not holds(first, digest):
        return False
    source.unlink()
    return True


def _bring(source: Path, target: Path, digest: str) -> None:
    if holds(target, digest):
        _forget(source, target)  # a killed ingest had copied it from another file system
    else:
        _move(source, target, digest)


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
                return  # somebody wrote to the file meanwhile: the copy is dropped
        _forget(source, target)


def _forget(source: Path, copy: Path) -> None:
    """Remove a file that was copied. If it cannot be removed, remove the copy and raise the error."""
    try:
        source.unlink()
    except OSError:
        copy.unlink()
        raise


def _written_late(source: Path, target: Path, mark: FileMark) -> bool:
    """Return whether somebody wrote to the file while it was moved. If so, move it back to the inbox."""
    now = mark_of(target)
    if now is None or now.inode != mark.inode or now == mark:
        return False
    target.rename(source.with_name(f"late-{source.name}") if source.exists() else source)
    return True
