"""Writing outputs: whole or not at all, and the same bytes for the same content.

Every writer goes to a temporary neighbour first and renames it, so a killed process leaves no partial output.
Parquet files carry no pandas metadata, JSON is sorted: two runs with equal content give equal hashes.
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
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # names may be as long as the file system allows, so the temporary one holds a digest of it
    temporary = path.with_name(f".{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_parquet(frame: pd.DataFrame, path: Path, schema: pa.Schema | None = None) -> None:
    """Write `frame` without its index. `schema` fixes column order and types."""
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False).replace_schema_metadata(None)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_json(content: Mapping[str, Any] | list[Any], path: Path) -> None:
    """Write sorted, indented JSON. NaN and infinities are refused: they are not JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table for people and spreadsheets; floats with 6 decimals, missing values empty."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def installed_files(package: str, pattern: str) -> list[Path]:
    """Return the files of an installed package that match `pattern`, sorted. The package is not imported."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    return sorted(file for folder in folders for file in Path(folder).glob(pattern) if file.is_file())


def relative_files(root: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """POSIX paths, relative to `root`, of its files with one of `suffixes`, in order; hidden ones are left out.

    What is there but cannot be read (links that lead nowhere, files and folders without permission) is named as well:
    somebody wanted images there, so whoever reads next has to say why there are none. Links to folders are not
    followed.
    """
    locked: list[OSError] = []
    walk = os.walk(root, onerror=locked.append)
    paths = [Path(folder, name) for folder, _, names in walk for name in names if Path(name).suffix.lower() in suffixes]
    for path in sorted([*filter(_is_file, paths), *(Path(error.filename) for error in locked)]):
        inside = path.relative_to(root)
        if not any(part.startswith(".") for part in inside.parts):
            yield inside.as_posix()


def _is_file(path: Path) -> bool:
    """Whether it is a regular file, as far as one may look; a pipe or a socket would block who opens it."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
