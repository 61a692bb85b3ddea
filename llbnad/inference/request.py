"""The rows of a request to a served model. Its sender is not trusted: sizes are limited, and files are off."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from llbnad.config import USUAL_PIXELS
from llbnad.errors import ConfigError, DataError

COLUMNS = ("path", "bytes", "array")  # of which each row fills one
SHOWN = 200  # characters of a wrong value in its error
FOLDER = "LLBNAD_SERVE_FOLDER"
MAXIMA = {"rows": "LLBNAD_SERVE_MAX_ROWS", "bytes": "LLBNAD_SERVE_MAX_BYTES", "pixels": "LLBNAD_SERVE_MAX_PIXELS"}


class RequestError(DataError):
    """A request cannot be answered row by row."""


@dataclass(frozen=True)
class Limits:
    """Limits on what a client may send. Environment variables set them where the model is served."""

    folder: Path | None = None  # files below it may be named; None: no file may
    rows: int = 1000  # of one request
    bytes: int = 128 << 20  # of one encoded image
    pixels: int = USUAL_PIXELS  # of one image, width × height

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Self:
        """Return the limits that environment variables set; the others keep their defaults.

        Raises:
            ConfigError: a number is not a whole number from 1 on, or the folder does not exist.
        """
        folder = environment.get(FOLDER, "")
        if folder and not Path(folder).is_dir():
            raise ConfigError(f"{FOLDER} is {folder!r}, which is not a folder: name the folder of the images to score")
        given = {key: _count(name, environment[name]) for key, name in MAXIMA.items() if environment.get(name)}
        return cls(folder=Path(folder).resolve() if folder else None, **given)


def _count(name: str, text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0
    if number < 1:
        raise ConfigError(f"{name} is {shortened(text)!r}; expected a whole number from 1 on")
    return number


def rows_of(request: Any, limits: Limits) -> list[Any]:
    """Return the rows of a request, in their order.

    Args:
        request: a table, a list of rows, or columns by name.
        limits: what a client may send.

    Raises:
        RequestError: no row has a usable column, a column is there twice or shorter than others, or there are too
            many rows.
    """
    if isinstance(request, Mapping):
        request = _table(request)
    if isinstance(request, pd.DataFrame):
        names = list(request.columns)
        if len(set(names)) < len(names):
            raise RequestError(f"the request has a column twice: {_listed(names)}")
        rows: list[Any] = request.to_dict("records")
    else:
        rows = _items(request) or []
        names = list(dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row))
    if not set(COLUMNS) & set(names):
        found = f"its columns are {_listed(names)}" if names else "it has no named column"
        raise RequestError(f"no column of the request is one of {', '.join(COLUMNS)}: {found}")
    if len(rows) > limits.rows:
        raise RequestError(f"the request has {len(rows):,} rows, at most {limits.rows:,}: send several requests")
    return rows


def _table(columns: Mapping[Any, Any]) -> pd.DataFrame:
    """Return columns as a table. A column that is no list is the value of a single row."""
    values = {name: [value] if (items := _items(value)) is None else items for name, value in columns.items()}
    lengths = {name: len(value) for name, value in values.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            f"the columns of the request have different lengths: {_listed([f'{n} {c}' for n, c in lengths.items()])}"
        )
    return pd.DataFrame({name: pd.Series(value, dtype=object) for name, value in values.items()})


def _items(value: Any) -> list[Any] | None:
    """Return the items of a list or an array, or None for a single value."""
    if isinstance(value, np.ndarray | pd.Series):
        return list(value) if value.ndim else None
    return list(value) if isinstance(value, list | tuple) else None


def _listed(names: list[Any]) -> str:
    return shortened(", ".join(map(str, names)))


def shortened(text: str) -> str:
    """Return a text of the client as it is shown in an error: on one line, and not longer than `SHOWN`."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
