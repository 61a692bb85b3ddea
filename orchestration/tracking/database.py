"""The embedded database of MLflow, made apart and renamed into place, so that a killed process leaves none half-made.

MLflow makes its tables one by one, for ten seconds, and cannot go on where it was killed. A half-made one, which an
older release or a server may leave, has no experiment: nothing was ever recorded in it, and it is made anew.
"""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from orchestration.tracking.moved import follow_move
from orchestration.tracking.server import MLFLOW_FOLDER, prepare_environment

LOCK_SECONDS = 120  # making it takes ten seconds, more beside other work
BESIDE = ("-journal", "-wal", "-shm")  # files of SQLite that belong to a database
SQLITE = "sqlite:///"


def prepare_database(root: Path = Path()) -> None:
    """Make the embedded database if it is missing or half-made, and make it follow a move of the project.

    A server or a database that the user named is left alone.
    """
    path = (root / MLFLOW_FOLDER / "mlflow.db").absolute()
    if not _is_in_use(path):
        return
    if _is_made(path):
        follow_move(path, LOCK_SECONDS)
        return
    from filelock import FileLock

    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_name(".making"), timeout=LOCK_SECONDS):
        if _is_made(path):
            return
        if path.exists():
            print(f"mended: {path} was half-made and held no record; it is made anew", file=sys.stderr, flush=True)
        apart = path.with_name("making.db")
        _remove(apart)
        _make(apart)
        _remove(path)
        apart.replace(path)


def _is_in_use(path: Path) -> bool:
    """Return whether records go into the database at `path`: no server, and no other database, is named."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    return not named or (named.startswith(SQLITE) and Path(named.removeprefix(SQLITE)).resolve() == path.resolve())


def _is_made(path: Path) -> bool:
    """Return whether the database holds an experiment. MLflow writes its first one when all tables are there."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
            return bool(database.execute("select 1 from experiments limit 1").fetchall())
    except sqlite3.OperationalError as error:
        return "no such table" not in str(error)  # another error is no sign of a kill: MLflow says it
    except sqlite3.DatabaseError:
        return True  # no database at all: it may be somebody's file, and MLflow says so


def _make(path: Path) -> None:
    prepare_environment()
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"{SQLITE}{path}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()  # no connection stays open under the old name


def _remove(path: Path) -> None:
    for file in (path, *(path.with_name(path.name + suffix) for suffix in BESIDE)):
        file.unlink(missing_ok=True)
