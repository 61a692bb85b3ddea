"""A moved or copied project: MLflow keeps artifacts by absolute address, and this makes its database follow the move.

MLflow turns a relative artifact location into an absolute one, so the embedded database names the folder it was made
in: in the experiment, in each run, in logged models and in registered versions. Before anything is recorded or read,
the experiment's address is compared with the folder that the database lies in. After a move, or in a copy, the part
that has changed is rewritten in one transaction. Addresses of other places, as of a bucket, stay as they are.
"""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from llbnad.errors import DataError
from orchestration.tracking.experiment import EXPERIMENT
from orchestration.tracking.server import MLFLOW_FOLDER

ARTIFACTS = MLFLOW_FOLDER / "artifacts"
ADDRESSES = (  # table and column of every address of artifacts
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_move(path: Path, patience: float) -> None:
    """Make the addresses in an embedded database those of the project that it lies in, if it was moved or copied.

    Artifacts that are still where the project was before are named on standard error, with what to do.

    Args:
        path: the database, `mlflow/mlflow.db` of a project.
        patience: seconds to wait for other processes that write.
    """
    root = path.parent.resolve().parent  # in a slice, the folder is a link into the workspace
    with closing(sqlite3.connect(path, timeout=patience, isolation_level=None)) as database:
        try:
            if _former_root(database, root) is None:
                return
        except sqlite3.DatabaseError:
            return  # no database of MLflow, and MLflow says so
        try:
            database.execute("begin immediate")
            former = _former_root(database, root)  # another process may have been faster
            moved, behind = _rewrite(database, former, root) if former is not None else (0, 0)
            database.execute("commit")
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path} is of another folder and cannot be mended ({error}): make it writable") from None
    if former is not None:
        print(f"mended: {path} was made in {former}; {moved} addresses of artifacts are in {root} now", file=sys.stderr)
    if former is not None and behind:
        there, here = former / ARTIFACTS, root / ARTIFACTS
        print(
            f"WARNING: the artifacts of {behind} addresses are in {there} alone: copy them to {here}", file=sys.stderr
        )


def _former_root(database: sqlite3.Connection, root: Path) -> Path | None:
    """Return the project that the database's addresses name; None if it is `root`, or if they name no project."""
    query = "select artifact_location from experiments where name = ?"
    row = database.execute(query, (EXPERIMENT,)).fetchone()
    if row is None or not row[0]:
        return None
    folder = Path(_path(row[0]) or "")
    if not folder.is_absolute() or folder.parts[-2:] != ARTIFACTS.parts:
        return None  # a bucket, a server's address, or a place of the user's choice
    here = root / ARTIFACTS
    if folder == here or (folder.exists() and here.exists() and folder.samefile(here)):
        return None  # the same folder, perhaps by another name
    return folder.parents[1]


def _rewrite(database: sqlite3.Connection, former: Path, root: Path) -> tuple[int, int]:
    """Rewrite the addresses below `former`. Return how many, and of how many the artifacts are not here yet."""
    moved = behind = 0
    for table, column in ADDRESSES:
        if column not in {row[1] for row in database.execute(f"pragma table_info('{table}')")}:
            continue  # of another release of MLflow
        for (address,) in database.execute(f"select distinct {column} from {table}").fetchall():
            path = Path(_path(address or "") or "")
            if not path.is_relative_to(former):
                continue
            target = root / path.relative_to(former)
            behind += table != "experiments" and path.exists() and not target.exists()
            new = target.as_uri() if address.startswith("file:") else str(target)
            database.execute(f"update {table} set {column} = ? where {column} = ?", (new, address))
            moved += 1
    return moved, behind


def _path(address: str) -> str | None:
    """Return the local path of an address, or None if it is of another kind."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return unquote(parts.path)
    return address if parts.scheme == "" else None
