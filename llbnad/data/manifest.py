"""The image table that every step passes on: one row per image.

`image_id`, the SHA-256 of the file's bytes, is the image's identity everywhere; of a page after the first, it is the
SHA-256 of that and the page's number (`llbnad.data.decode`). Positions in the table are never used.
Rows are sorted by `image_id`, so equal content means equal bytes on disk.

| column        | type   | meaning                                                                                     |
|---------------|--------|---------------------------------------------------------------------------------------------|
| image_id      | string | SHA-256 of the file, 64 hex digits; unique                                                  |
| path          | string | image file, POSIX, relative to the image root                                               |
| mask_path     | string | mask file, as above; several are joined by `|` (`llbnad.data.masks`); null where none is    |
| category      | string | product, e.g. `audiojack`                                                                   |
| sample_id     | string | physical item; all views of one item share it                                               |
| view          | string | camera view, e.g. `C1`; null where there is only one                                        |
| anomaly_class | string | `OK` for normal, the defect's code otherwise; null for an image without a label             |
| split         | string | `train` or `test`; null where the source has no split of its own                            |
| width, height | int32  | pixels                                                                                      |
| black, white  | double | values of the file shown as black and white; null for 8 bits, which are not changed         |
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from llbnad.config import Window
from llbnad.errors import DataError, IdentityError, ManifestMissingError
from llbnad.utils.files import write_parquet

NORMAL = "OK"

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("mask_path", pa.string()),
        pa.field("category", pa.string(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("view", pa.string()),
        pa.field("anomaly_class", pa.string()),
        pa.field("split", pa.string()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("black", pa.float64()),
        pa.field("white", pa.float64()),
    ]
)
WINDOW = ("black", "white")  # columns that manifests of earlier releases lack: their images are read as before


def normalise(frame: pd.DataFrame) -> pd.DataFrame:
    """Check `frame` against the schema and return its rows sorted by image id.

    Raises:
        DataError: a column is missing.
        IdentityError: an image id occurs twice.
    """
    frame = frame.assign(**{name: frame[name].astype("float64") if name in frame else np.nan for name in WINDOW})
    missing = [name for name in SCHEMA.names if name not in frame.columns]
    if missing:
        raise DataError(f"manifest lacks the columns {missing}; expected {SCHEMA.names}")
    doubled = frame["image_id"][frame["image_id"].duplicated()].tolist()
    if doubled:
        raise IdentityError(f"{len(doubled)} image ids occur twice in the manifest; the first is {doubled[0]}")
    return frame.sort_values("image_id", ignore_index=True)


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest. Extra columns follow the documented ones.

    Raises:
        DataError: a documented column is missing.
        IdentityError: an image id occurs twice.
    """
    frame = normalise(frame)
    extra = [name for name in frame.columns if name not in SCHEMA.names]
    schema = SCHEMA
    for name in extra:
        schema = schema.append(pa.Schema.from_pandas(frame[[name]], preserve_index=False).field(0))
    write_parquet(frame[schema.names], path, schema)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest written by `write_manifest`.

    Raises:
        ManifestMissingError: there is no such file.
        DataError: it is damaged, lacks a documented column, or holds values of another type there.
    """
    if not path.exists():
        raise ManifestMissingError(f"no manifest at {path}: give the path of a file that `write_manifest` wrote")
    try:
        frame = normalise(pd.read_parquet(path))
        pa.Table.from_pandas(frame[SCHEMA.names], SCHEMA, preserve_index=False).validate(full=True)
    except DataError as error:
        raise type(error)(f"{path}: {error}") from None
    except (pa.ArrowException, OSError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path} is no manifest ({said:.200}): restore the file, or read the data set again") from None
    return frame


def paths_of(manifest: pd.DataFrame) -> dict[str, str]:
    """Return the path of each image of a manifest by its id."""
    return dict(zip(manifest["image_id"], manifest["path"], strict=True))


def window_of(row: Mapping[Any, Any]) -> Window | None:
    """Return the window that the image of a row is read by; None for an image of 8 bits."""
    black, white = (row.get(name) for name in WINDOW)
    return None if pd.isna(black) or pd.isna(white) else (float(black), float(white))


def windows_of(manifest: pd.DataFrame) -> dict[str, Window]:
    """Return the windows of the images that have one, by image id. Columns that are missing count as empty."""
    rows = manifest.reindex(columns=["image_id", *WINDOW]).dropna()
    return {row["image_id"]: (float(row["black"]), float(row["white"])) for row in rows.to_dict("records")}


def common_window(manifest: pd.DataFrame) -> Window | None:
    """Return the one window of all images that have one; None if none has.

    Raises:
        DataError: there are several.
    """
    found = sorted(set(windows_of(manifest).values()))
    if len(found) > 1:
        raise DataError(
            f"the manifest holds {len(found)} windows of values (black, white): {found[:3]}; expected one for all "
            "images above 8 bits: read the data set again"
        )
    return found[0] if found else None


def training_images(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose `split` is train."""
    return manifest[manifest["split"] == "train"]


def is_anomalous(manifest: pd.DataFrame) -> pd.Series:
    """Return True for defects, False for normal images and <NA> for images without a label.

    The series is nullable boolean and keeps the index of `manifest`.
    """
    labels = manifest["anomaly_class"]
    return (labels != NORMAL).astype("boolean").mask(labels.isna())


def has_labels(manifest: pd.DataFrame) -> bool:
    """Return whether the manifest is not empty and every image has a label."""
    return len(manifest) > 0 and bool(manifest["anomaly_class"].notna().all())


def contamination(manifest: pd.DataFrame) -> float | None:
    """Return the share of anomalous images in [0, 1], or None if the manifest is empty or a label is missing."""
    return float(is_anomalous(manifest).mean()) if has_labels(manifest) else None
