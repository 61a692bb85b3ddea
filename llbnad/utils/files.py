"""Files: writers that write all or nothing and give equal bytes for equal content, digests, and lists of files.

Every writer writes to a temporary file beside the target and renames it, so a killed process leaves no partial output.
Parquet files carry no pandas metadata, and JSON is sorted, so that two runs with equal content give equal hashes.
"""

import hashlib
import importlib.util
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbnad.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block succeeds.

    Raises:
        OSError: the block could not write, as on a full disk. The error names `path`, which the system leaves out.
        DataError: `path` is a folder, a pipe or a device, in whose place no file may come.
    """
    refuse_special(path, "a file that may be written")
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name may be as long as the file system allows, so the temporary name holds a digest of it
    temporary = path.with_name(f".{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(frame: "pd.DataFrame", path: Path, schema: "pa.Schema | None" = None) -> None:
    """Write `frame` as parquet, without its index. `schema` fixes the order and the types of the columns."""
    import pyarrow as pa  # here: commands that write no table begin a third of a second earlier
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(content: Mapping[str, Any] | list[Any], path: Path) -> None:
    """Write sorted, indented JSON.

    Raises:
        ValueError: a value is NaN or infinite, which JSON does not have.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(frame: "pd.DataFrame", path: Path) -> None:
    """Write a table for people and spreadsheets, with 6 decimals for floats and empty cells for missing values."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def refuse_special(path: Path, wanted: str) -> None:
    """Refuse what is no regular file: reading a pipe or a device might never end. A missing file is left to the reader.

    Args:
        path: the file.
        wanted: what it should be, such as `a CSV file`.

    Raises:
        DataError: it is a folder, a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise DataError(f"{path} is {kind}: expected {wanted}")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def installed_files(package: str, pattern: str) -> list[Path]:
    """Return the files of an installed package that match `pattern`, sorted. The package is not imported."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return sorted(file for folder in folders for file in Path(folder).glob(pattern) if file.is_file())


def relative_files(root: Path, suffixes: frozenset[str] | None = None) -> Iterator[str]:
    """Yield the files below `root`, sorted, as POSIX paths relative to `root`.

    With `suffixes`, only files that end in one of them.

    Hidden files and folders are left out. Links to folders are not followed. Paths that cannot be read (broken links,
    files and folders without permission) are included, because somebody wanted images there: the reader of the files
    has to report them.
    """
    locked: list[OSError] = []
    walk = os.walk(root, onerror=locked.append)
    wanted = (Path(folder, name) for folder, _, names in walk for name in names)
    paths = [path for path in wanted if suffixes is None or path.suffix.lower() in suffixes]
    for path in sorted([*filter(_is_file, paths), *(Path(error.filename) for error in locked)]):
        inside = path.relative_to(root)
        if not any(part.startswith(".") for part in inside.parts):
            yield inside.as_posix()


def _is_file(path: Path) -> bool:
    """Return whether `path` is a regular file or cannot be examined. Opening a pipe or a socket would block."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
