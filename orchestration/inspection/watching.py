"""The watching of a line's folder: one process per folder of results, until it is told to stop."""

import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from llbnad.errors import LlbnadError
from orchestration.inspection.inspector import Inspector
from orchestration.inspection.ledger import LedgerRow

LOCK = ".watch.lock"
LOOK_SECONDS = 0.2  # pause between two looks; a folder that takes longer to list is looked at half of the time
RETRY_SECONDS = 5.0  # after an error of the disk


class WatchedError(LlbnadError):
    """Another process writes the same results."""


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Keep other watchers away from the folder of results during the block.

    Raises:
        WatchedError: another process watches.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WatchedError(f"{out} is written by another `watch`: let it run, or name another --out") from None
    try:
        yield
    finally:
        lock.release()


def is_watched(out: Path) -> bool:
    """Return whether a process writes the results in `out` at this moment."""
    if not (out / LOCK).exists():
        return False
    try:
        with only_one(out):
            return False
    except WatchedError:
        return True


def look_once(inspector: Inspector) -> list[LedgerRow]:
    """Score the files that are complete now, which takes two looks. Return their rows."""
    inspector.look()
    time.sleep(inspector.settings.stable_seconds)
    return inspector.look()


def watch(inspector: Inspector, stop: threading.Event, told: Callable[[LedgerRow], None]) -> None:
    """Score what arrives until `stop` is set. An error of the disk, such as a full one, is said and tried again.

    Args:
        inspector: scores the folder.
        stop: set by another thread, or by `told`.
        told: called with each row.
    """
    while not stop.is_set():
        begun = time.monotonic()
        try:
            rows = inspector.look()
        except (OSError, sqlite3.OperationalError) as error:
            print(f"trying again in {RETRY_SECONDS:.0f} s: {error}", file=sys.stderr, flush=True)
            stop.wait(RETRY_SECONDS)
            continue
        for row in rows:
            told(row)
        stop.wait(max(LOOK_SECONDS, time.monotonic() - begun) if not rows else 0)
