"""The image of one row of a request: a file, the bytes of one, or pixels.

* `path`: an image file below the folder that the operator named, relative to it or absolute;
* `bytes`: an encoded image (PNG, JPEG …); as text its base64, plain or URL-safe, wrapped or not, or a data URL;
* `array`: pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), whole numbers 0 … 255; nested lists, or these as JSON text.
"""

import base64
import binascii
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.errors import DataError
from llbnad.inference.request import COLUMNS, FOLDER, Limits, shortened

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's modes
SHAPES = "(H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"


def source_of(row: Any, limits: Limits) -> Path | bytes | np.ndarray:
    """Return the image of a row: a file, the bytes of one, or pixels (H, W, 3) uint8.

    Raises:
        DataError: not exactly one column is filled, or its value is no image, too large or not allowed.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"the row is of type {type(row).__name__}; expected one of {', '.join(COLUMNS)} by name")
    given = {name: row[name] for name in COLUMNS if not _is_missing(row.get(name))}
    if len(given) != 1:
        filled = "several" if given else "none"
        raise DataError(f"{filled} of {', '.join(COLUMNS)} is filled; expected exactly one")
    ((name, value),) = given.items()
    if name == "path":
        return _file(value, limits)
    return _encoded(value, limits) if name == "bytes" else _pixels(value, limits)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _file(value: Any, limits: Limits) -> Path:
    """Return a file below the folder. A missing file and a forbidden one have the same error: nobody can probe."""
    if limits.folder is None:
        raise DataError(f"path is off here: send bytes, or name a folder in {FOLDER} where the model is served")
    if not isinstance(value, str):
        raise DataError(f"path is of type {type(value).__name__}; expected text")
    try:
        file = (limits.folder / value).resolve()
        found = file.is_relative_to(limits.folder) and file.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long to be one, a loop of links, a byte that none has
        found = False
    if not found:
        raise DataError(f"path {shortened(value)!r} is no file below the folder that is served")
    size = file.stat().st_size
    if size > limits.bytes:
        raise DataError(f"path {shortened(value)!r} has {size:,} bytes, at most {limits.bytes:,}")
    return file


def _encoded(value: Any, limits: Limits) -> bytes:
    content = bytes(value) if isinstance(value, bytes | bytearray | memoryview) else _decoded(value, limits)
    if len(content) > limits.bytes:
        raise _too_many_bytes(len(content), limits)
    return content


def _decoded(text: Any, limits: Limits) -> bytes:
    if not isinstance(text, str):
        raise DataError(f"bytes is of type {type(text).__name__}; expected base64 text")
    if len(text) > 2 * limits.bytes + 1000:  # base64 has 4 characters for 3 bytes, besides line breaks
        raise _too_many_bytes(len(text) * 3 // 4, limits)
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise DataError(f"bytes is the data URL {shortened(head)!r}; expected data:image/…;base64,…")
        text = unquote(text)
    digits = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        content = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"bytes is not base64 ({error}): it begins with {shortened(text[:20])!r}") from None
    return content


def _too_many_bytes(count: int, limits: Limits) -> DataError:
    return DataError(f"bytes holds an image of {count:,} bytes, at most {limits.bytes:,}")


def _pixels(value: Any, limits: Limits) -> np.ndarray | bytes:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(f"array is the text {shortened(value[:50])!r}; expected nested lists as JSON") from None
    try:
        pixels = np.asarray(_plain(value))
    except (ValueError, OverflowError, RecursionError):
        raise DataError(f"array has rows of unequal length; expected {SHAPES}") from None
    if not _are_bytes(pixels):
        raise DataError(f"array holds values of type {pixels.dtype}; expected whole numbers 0 … 255")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS or not pixels.size:
        raise DataError(f"array has shape {np.shape(value)}; expected {SHAPES}")
    height, width, channels = pixels.shape
    if height * width > limits.pixels:
        raise DataError(f"array is too large: {width} × {height} pixels, at most {limits.pixels:,}")
    pixels = pixels.astype(np.uint8)
    if channels == 4:  # alpha: by the rule for files
        file = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(file, "png", compress_level=1)
        return file.getvalue()
    return np.broadcast_to(pixels, (height, width, 3)).copy() if channels == 1 else pixels


def _are_bytes(pixels: np.ndarray) -> bool:
    """Return whether all values are whole numbers 0 … 255; programs write 7 as 7.0, too."""
    if pixels.dtype.kind not in "iuf":
        return False
    return bool(((pixels >= 0) & (pixels <= 255) & (pixels % 1 == 0)).all())


def _plain(value: Any) -> Any:
    """Return arrays inside arrays, as Parquet has them, as lists of arrays that numpy can put together."""
    return [_plain(item) for item in value] if isinstance(value, np.ndarray) and value.dtype == object else value
