"""Bring a file of the inbox to the place that was decided for it, so that its bytes are on disk at every moment.

Each step may be repeated, and none is trusted to have happened: what lies where is looked at again each time.
"""

import errno
import os
import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from llbnad.utils.files import file_digest, replacing, write_json
from orchestration.line.arrivals import Places, Planned
from orchestration.line.inbox import Mark, mark_of, warn_that_it_stays
from orchestration.pipeline.paths import INCOMING

LONGEST_NAME = 240  # bytes; file systems allow 255, and ".json" is put behind it


def settle(places: Places, planned: Planned) -> bool:
    """Bring one file to its place; return False if it stays in the inbox, for another ingest to look at.

    A file stays if it was changed or taken away after it was hashed, if it may not be moved, or if it doubles a file
    that stays.
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


def free_name(places: Places, path: str, digest: str, taken: set[str]) -> Path:
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


def holds(path: Path, digest: str) -> bool:
    """Whether the bytes with this SHA-256 are at `path`."""
    return path.is_file() and file_digest(path) == digest


def _remove_double(source: Path, first: Path, digest: str) -> bool:
    """Remove a file whose bytes are at `first` already; return False if they are not, and it stays."""
    if not holds(first, digest):
        return False
    source.unlink()
    return True


def _bring(source: Path, target: Path, digest: str) -> None:
    if holds(target, digest):
        _forget(source, target)  # copied from another file system, then killed
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
