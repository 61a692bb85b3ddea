"""The ledger of inspected images: one row per image, in a file that is never torn, and what is still to be done.

    OUT/inspected.sqlite    the record; one transaction holds a row and all that follows from it
    OUT/inspected.csv       the same rows for people; written anew at each start

An image is its content and its name: the same bytes under the same name are one row, whatever becomes of the process.
"""

import csv
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from llbnad.errors import DataError
from llbnad.utils.files import replacing
from orchestration.line.inbox import FileMark

RECORD, VIEW = "inspected.sqlite", "inspected.csv"
BUSY_SECONDS = 30.0  # another connection may be writing
SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scored TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
  model TEXT NOT NULL, score REAL, threshold REAL, label TEXT NOT NULL, picture TEXT NOT NULL, error TEXT NOT NULL,
  regions INTEGER, largest_area INTEGER, largest_box TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS seen (path BLOB PRIMARY KEY, mark TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS training (id TEXT PRIMARY KEY, path BLOB NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL, attempts INTEGER NOT NULL,
  due REAL NOT NULL);
"""
ADDED = {
    "regions": "INTEGER",
    "largest_area": "INTEGER",
    "largest_box": "TEXT NOT NULL DEFAULT ''",
}  # columns that the first records lack


@dataclass(frozen=True)
class LedgerRow:
    """The result for one image."""

    id: str  # 32 hex digits, from content and name
    scored: str  # UTC, ISO 8601 with seconds
    path: str  # relative to the folder watched; bytes that are not UTF-8 are written out
    sha256: str
    model: str  # version of the model, such as `llbnad-bottle version 3`
    score: float | None  # None if the image could not be scored
    threshold: float | None
    label: str  # normal, unsure or defect; empty without a score or a threshold
    picture: str  # relative to OUT; empty if there is none
    error: str  # why there is no score
    regions: int | None = None  # how many; None without a score, or if the model has no pixel threshold
    largest_area: int | None = None  # pixels of the largest region; None if there is none
    largest_box: str = ""  # its x, y, width and height in pixels of the image, with spaces between them

    def content(self) -> dict[str, str | int | float | None]:
        """Return the row as JSON values."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


COLUMNS = tuple(one.name for one in fields(LedgerRow))


@dataclass(frozen=True)
class Message:
    """A message that the webhook has not taken yet."""

    id: str
    body: str
    attempts: int
    due: float  # seconds since the epoch; not to be tried earlier


def identity(path: str, digest: str) -> str:
    """Return the id of an image from its path relative to the watched folder and the SHA-256 of its bytes."""
    return hashlib.sha256(digest.encode() + b" " + os.fsencode(path)).hexdigest()[:32]


class Ledger:
    """The ledger in a folder. One process writes it; each thread opens its own.

    Raises:
        DataError: the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(folder / RECORD, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self.connection.execute("PRAGMA synchronous = FULL")  # a row that was reported outlives a power cut
            self.connection.executescript(SCHEMA)
            self._add_columns()
        except sqlite3.OperationalError:  # of the disk, or another connection
            raise
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise DataError(
                f"{folder / RECORD} is no record of scored images ({error}): move it away, and all are scored anew"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def has(self, image: str) -> bool:
        """Return whether the image with this id has a row."""
        return self.connection.execute("SELECT 1 FROM images WHERE id = ?", (image,)).fetchone() is not None

    def add(self, row: LedgerRow, path: str, mark: FileMark, to_training: bool = False, message: bool = False) -> bool:
        """Add a row, that its file was seen, and what is to be done with it, all or nothing.

        Args:
            row: the result.
            path: name of the file, as the system has it.
            mark: the file's mark when its bytes were read.
            to_training: the image is to be copied to the inbox of its line.
            message: the webhook is to be told.

        Returns:
            whether the image was new; if it was not, only its mark is kept.
        """
        name = os.fsencode(path)
        with self._transaction():
            self._see(name, mark)
            if self.has(row.id):
                return False
            marks = ", ".join("?" * len(COLUMNS))
            self.connection.execute(f"INSERT INTO images ({', '.join(COLUMNS)}) VALUES ({marks})", astuple(row))
            if to_training:
                self.connection.execute("INSERT INTO training VALUES (?, ?, ?)", (row.id, name, row.sha256))
            if message:
                body = json.dumps(row.content(), sort_keys=True)
                new = (row.id, body, 0, 0.0)
                self.connection.execute("INSERT INTO outbox (id, body, attempts, due) VALUES (?, ?, ?, ?)", new)
        return True

    def see(self, path: str, mark: FileMark) -> None:
        """Remember that the file with this mark needs no further look."""
        with self._transaction():
            self._see(os.fsencode(path), mark)

    def seen(self) -> dict[str, FileMark]:
        """Return the marks of the files that were scored, by path."""
        rows = self.connection.execute("SELECT path, mark FROM seen")
        return {os.fsdecode(path): FileMark(*json.loads(mark)) for path, mark in rows}

    def forget(self, path: str) -> None:
        """Drop the mark of a file that has gone. Its row stays."""
        self.connection.execute("DELETE FROM seen WHERE path = ?", (os.fsencode(path),))

    def for_training(self) -> list[tuple[str, str, str]]:
        """Return id, path and SHA-256 of the images that are still to be copied to the inbox."""
        rows = self.connection.execute("SELECT id, path, sha256 FROM training ORDER BY rowid")
        return [(image, os.fsdecode(path), digest) for image, path, digest in rows]

    def handed_on(self, image: str) -> None:
        """Note that an image is in the inbox, or never will be."""
        self.connection.execute("DELETE FROM training WHERE id = ?", (image,))

    def messages(self, now: float) -> list[Message]:
        """Return the messages that may be tried at the time `now`, oldest first."""
        wanted = "SELECT id, body, attempts, due FROM outbox WHERE due <= ? ORDER BY number LIMIT 100"
        return [Message(*row) for row in self.connection.execute(wanted, (now,))]

    def undelivered(self) -> int:
        """Return the number of messages that the webhook has not taken."""
        return int(self.connection.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    def delivered(self, image: str) -> None:
        """Remove a message that the webhook took."""
        self.connection.execute("DELETE FROM outbox WHERE id = ?", (image,))

    def postpone(self, image: str, due: float) -> None:
        """Note that a message failed once more, and when it may be tried again."""
        self.connection.execute("UPDATE outbox SET attempts = attempts + 1, due = ? WHERE id = ?", (due, image))

    def count(self) -> int:
        """Return the number of rows. No row is ever removed, so this is the number of the newest, found at once."""
        return int(self.connection.execute("SELECT MAX(number) FROM images").fetchone()[0] or 0)

    def rows(self) -> Iterator[LedgerRow]:
        """Yield all rows in the order in which they were added."""
        for row in self.connection.execute(f"SELECT {', '.join(COLUMNS)} FROM images ORDER BY number"):
            yield LedgerRow(*row)

    def write_view(self) -> None:
        """Write the rows as CSV, in the place of what an earlier process left."""
        with replacing(self.folder / VIEW) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(astuple(row) for row in self.rows())

    def append_view(self, row: LedgerRow) -> None:
        """Add a row to the CSV. A torn line is mended at the next start."""
        with (self.folder / VIEW).open("a", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerow(astuple(row))

    def _see(self, name: bytes, mark: FileMark) -> None:
        self.connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (name, json.dumps(list(mark))))

    def _add_columns(self) -> None:
        """Add to a record the columns that it lacks; its rows keep what they say."""
        if self._lacking():
            with self._transaction():  # another process may have added them meanwhile
                for name in self._lacking():
                    self.connection.execute(f"ALTER TABLE images ADD COLUMN {name} {ADDED[name]}")

    def _lacking(self) -> list[str]:
        known = {column[1] for column in self.connection.execute("PRAGMA table_info(images)")}
        return [name for name in ADDED if name not in known]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:  # also Ctrl-C: nothing half-written stays, and the error goes on
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


def count_in(folder: Path) -> int:
    """Return the number of rows in a folder of results, which another process may be writing."""
    if not (folder / RECORD).exists():
        return 0
    with closing(Ledger(folder)) as ledger:
        return ledger.count()


def messages_wait_in(folder: Path) -> bool:
    """Return whether a folder of results holds messages that the webhook may be told now."""
    if not (folder / RECORD).exists():
        return False
    with closing(Ledger(folder)) as ledger:
        return bool(ledger.messages(time.time()))


def seen_in(folder: Path) -> Mapping[str, FileMark]:
    """Return the marks of the scored files of a folder that another process may be writing; empty if there is none."""
    if not (folder / RECORD).exists():
        return {}
    with closing(Ledger(folder)) as ledger:
        return ledger.seen()
