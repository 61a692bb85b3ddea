"""The inbox of a production line, data/incoming/<line>/: which files are there, and which of them are complete.

A file is complete if two looks saw the same inode, size and modification time, and nobody touched it for
`arrival.stable_seconds`. The change time says when a file was touched: writing, renaming and copying set it, and no
tool can forge it. Hidden files, temporary files and links are left alone.
"""

import errno
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from orchestration.pipeline.params import NAME_REASON, SCENARIO_NAME
from orchestration.pipeline.paths import INCOMING

LOG = logging.getLogger(__name__)

TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
CLOCK_SECONDS = 60.0  # two clocks, as of this machine and of a file server, differ by less
LOOK_SECONDS = 1.0  # pause between the two looks of one ingest


class FileMark(NamedTuple):
    """Numbers of a file that change when its content does."""

    inode: int
    size: int  # bytes
    mtime_ns: int


def lines(root: Path, folder: Path = INCOMING) -> dict[str, str | None]:
    """Return the folders of data/incoming, or of another `folder`, by name, with why one cannot be a line, or None."""
    found: dict[str, str | None] = {}
    if (root / folder).is_dir():
        for entry in sorted(os.scandir(root / folder), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith("."):
                found[entry.name] = why_not(entry.name)
    return found


def why_not(name: str) -> str | None:
    """Return why a folder's name cannot be the name of a line, or None if it can."""
    if SCENARIO_NAME.fullmatch(name):
        return None
    return f"its name {name!r} must be letters, digits and '_', at most 100 ({NAME_REASON}): rename the folder"


def look(inbox: Path) -> dict[str, os.stat_result]:
    """Return the files to take in once they are complete, by POSIX path relative to `inbox`."""
    return dict(_walk(inbox, ""))


def untouched(seen: Mapping[str, os.stat_result], stable_seconds: float) -> list[str]:
    """Return the paths of files that nobody touched for `stable_seconds`.

    A file that was touched in the future was touched before the clock was set back, so nobody touched it since then.
    """
    now = time.time()
    return [
        path
        for path, found in seen.items()
        if found.st_ctime <= now - stable_seconds or found.st_ctime > now + CLOCK_SECONDS
    ]


def look_twice(inbox: Path, stable_seconds: float) -> tuple[dict[str, FileMark], int]:
    """Return the marks of the complete files, by path, and the number of other files."""
    before = look(inbox)
    if not before:
        return {}, 0
    time.sleep(min(LOOK_SECONDS, stable_seconds))
    now = look(inbox)
    marks = {path: _mark(now[path]) for path in untouched(now, stable_seconds)}
    found = {path: mark for path, mark in marks.items() if path in before and _mark(before[path]) == mark}
    return found, len(now) - len(found)


def mark_of(path: Path) -> FileMark | None:
    """Return the mark of a file, or None if the file does not exist."""
    try:
        return _mark(path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def warn_that_it_stays(file: Path, error: OSError, verb: str) -> None:
    """Log that a file stays in the inbox because this user could not `verb` it."""
    forbidden = error.errno in (errno.EACCES, errno.EPERM)
    advice = f"; give this user the right to {verb} it" if forbidden else ""
    LOG.warning("%s stays in the inbox: %s%s", file, error.strerror, advice)


def _mark(found: os.stat_result) -> FileMark:
    return FileMark(found.st_ino, found.st_size, found.st_mtime_ns)


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        LOG.warning("%s cannot be read (%s): what is in it waits", folder, error.strerror)
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name.lower().endswith(TEMPORARY):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # the file has gone meanwhile
            yield prefix + entry.name, found
