"""Requests to a served model: every usual spelling of an image, nothing above the limits, no file."""

import base64
import io
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.data.images import load_square
from llbnad.errors import ConfigError, DataError
from llbnad.inference.request import FOLDER, MAXIMA, Limits, RequestError, rows_of
from llbnad.inference.request_row import source_of

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def encoded(pixels=PIXELS):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


PNG = encoded()
PLAIN = base64.b64encode(PNG).decode()


def seen(row, limits=None):
    """Return the pixels (8, 8, 3) that the model gets."""
    return load_square(source_of(row, limits or Limits()), 8)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("raw", PNG),
        ("bytearray", bytearray(PNG)),
        ("base64", PLAIN),
        ("wrapped as by base64(1)", base64.encodebytes(PNG).decode()),
        ("wrapped with carriage returns", base64.encodebytes(PNG).decode().replace("\n", "\r\n")),
        ("indented", f"\n   {PLAIN} \n"),
        ("without padding", PLAIN.rstrip("=")),
        ("URL-safe", base64.urlsafe_b64encode(PNG).decode()),
        ("URL-safe without padding", base64.urlsafe_b64encode(PNG).decode().rstrip("=")),
        ("data URL", f"data:image/png;base64,{PLAIN}"),
        ("data URL with a charset", f"DATA:image/png;charset=utf-8;BASE64,{PLAIN}"),
        ("data URL without a type", f"data:;base64,{PLAIN}"),
        ("data URL, percent-encoded", "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F")),
    ],
)
def test_bytes_are_read_in_every_usual_spelling(kind, value):
    assert (seen({"bytes": value}) == load_square(PIXELS, 8)).all()


GREY = PIXELS[..., 0]
AS_RGB = np.repeat(GREY[..., None], 3, axis=2)
OPAQUE, UNUSED = (np.dstack([PIXELS, np.full(GREY.shape, alpha, np.uint8)]) for alpha in (255, 0))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("RGB", PIXELS, PIXELS),
        ("lists", PIXELS.tolist(), PIXELS),
        ("JSON text", json.dumps(PIXELS.tolist()), PIXELS),
        ("int64", PIXELS.astype(np.int64), PIXELS),
        ("whole floats", PIXELS.astype(float).tolist(), PIXELS),
        ("lists of arrays", list(PIXELS), PIXELS),
        ("grey", GREY.tolist(), AS_RGB),
        ("grey with a channel", GREY[..., None].tolist(), AS_RGB),
        ("opaque", OPAQUE, PIXELS),
        ("alpha that the camera left unused", UNUSED.tolist(), PIXELS),
        ("transparent over black", np.dstack([PIXELS, np.uint8(255) * (GREY > 99)]), PIXELS * (GREY > 99)[..., None]),
    ],
)
def test_arrays_are_read_in_every_usual_shape(kind, value, expected):
    assert (seen({"array": value}) == load_square(expected, 8)).all()


def test_an_array_of_a_parquet_file_is_read(tmp_path):
    pd.DataFrame({"array": [PIXELS.tolist()]}).to_parquet(tmp_path / "rows.parquet")
    (row,) = rows_of(pd.read_parquet(tmp_path / "rows.parquet"), Limits())
    assert (seen(row) == load_square(PIXELS, 8)).all()


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({}, "none of path, bytes, array is filled; expected exactly one"),
        ({"bytes": None, "path": float("nan"), "array": pd.NA}, "none of path, bytes, array is filled"),
        ({"bytes": " "}, "none of path, bytes, array is filled"),
        ({"bytes": PLAIN, "array": PIXELS}, "several of path, bytes, array is filled"),
        ("a.png", "the row is of type str"),
        (None, "the row is of type NoneType"),
        ({"bytes": 5}, "bytes is of type int; expected base64 text"),
        ({"bytes": "no base64!"}, "bytes is not base64"),
        ({"bytes": "é"}, "bytes is not base64"),
        ({"bytes": "A"}, "bytes is not base64"),
        ({"bytes": "data:image/svg+xml,%3Csvg/%3E"}, "data URL 'data:image/svg+xml'; expected data:image/…;base64,…"),
        ({"bytes": "data:image/png;base64"}, "bytes is the data URL"),
        ({"array": 5}, "array has shape (); expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"),
        ({"array": []}, "array has shape (0,)"),
        ({"array": [[float("nan")]]}, "array holds values of type float64; expected whole numbers 0 … 255"),
        ({"array": [1, 2]}, "array has shape (2,)"),
        ({"array": np.zeros((2, 0, 3), np.uint8)}, "array has shape (2, 0, 3)"),
        ({"array": np.zeros((4, 4, 2), np.uint8)}, "array has shape (4, 4, 2)"),
        ({"array": np.zeros((1, 4, 4, 3), np.uint8)}, "array has shape (1, 4, 4, 3)"),
        ({"array": [[1, 2], [3]]}, "array has rows of unequal length"),
        ({"array": [[1, None]]}, "array holds values of type object"),
        ({"array": [["a"]]}, "array holds values of type"),
        ({"array": [[10**40]]}, "array holds values of type object"),
        ({"array": [[0.5]]}, "array holds values of type float64"),
        ({"array": [[True]]}, "array holds values of type bool"),
        ({"array": [[-1]]}, "expected whole numbers 0 … 255"),
        ({"array": [[256]]}, "expected whole numbers 0 … 255"),
        ({"array": "a.png"}, "array is the text 'a.png'; expected nested lists as JSON"),
        ({"array": "[" * 100_000}, "array is the text"),
        ({"array": {"a": 1}}, "array holds values of type object"),
        ({"path": "a.png"}, "path is off here: send bytes, or name a folder in LLBNAD_SERVE_FOLDER"),
        ({"path": 5}, "path is off here"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_image_says_why(row, line):
    with pytest.raises(DataError) as error:
        source_of(row, Limits())
    assert line in str(error.value) and len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


@pytest.fixture
def folder(tmp_path):
    """A folder to serve, beside what nobody may read."""
    inside = tmp_path / "served"
    (inside / "line").mkdir(parents=True)
    for path in (inside / "a.png", inside / "line" / "b.png", tmp_path / "secret.png", tmp_path / "served-too.png"):
        path.write_bytes(PNG)
    (inside / "out.png").symlink_to(tmp_path / "secret.png")
    (inside / "up").symlink_to(tmp_path)
    (inside / "in.png").symlink_to(inside / "a.png")
    (inside / "loop").symlink_to("loop")
    os.mkfifo(inside / "pipe")
    return inside


@pytest.mark.parametrize("path", ["a.png", "line/b.png", "line/../a.png", "in.png", "./a.png", "{folder}/line/b.png"])
def test_files_below_the_named_folder_are_read(folder, path):
    limits = Limits.read({FOLDER: str(folder)})
    assert (seen({"path": path.format(folder=folder)}, limits) == load_square(PIXELS, 8)).all()


@pytest.mark.parametrize(
    "path",
    ["gone.png", "../secret.png", "../gone.png", "line/../../secret.png", "{folder}/../secret.png", "/etc/passwd",
     "/etc/gone", "out.png", "up/secret.png", "up/gone.png", "loop", "pipe", "line", ".", "..", "{folder}-too.png",
     "a\0.png", "a.png/b", "x" * 5000, "~/a.png", "file:///etc/passwd"],
)  # fmt: skip
def test_missing_and_forbidden_files_cannot_be_told_apart(folder, path):
    given = path.format(folder=folder)
    with pytest.raises(DataError) as error:
        source_of({"path": given}, Limits.read({FOLDER: str(folder)}))
    shown = given if len(given) < 200 else f"{given[:200]}…"
    assert str(error.value) == f"path {shown!r} is no file below the folder that is served"


def test_sizes_are_limited(folder):
    small = Limits(folder=folder, bytes=len(PNG) - 1, pixels=1199)
    for row in ({"bytes": PNG}, {"bytes": PLAIN}, {"path": "a.png"}, {"bytes": "A" * 100_000}):
        with pytest.raises(DataError, match=rf"bytes, at most {len(PNG) - 1:,}"):
            source_of(row, small)
    with pytest.raises(DataError, match=r"array is too large: 30 × 40 pixels, at most 1,199"):
        source_of({"array": PIXELS}, small)
    just = Limits(folder=folder, bytes=len(PNG), pixels=1200)
    for row in ({"bytes": PNG}, {"bytes": PLAIN}, {"path": "a.png"}, {"array": PIXELS}):
        assert (seen(row, just) == load_square(PIXELS, 8)).all()


def test_rows_are_limited():
    with pytest.raises(RequestError, match="the request has 3 rows, at most 2: send several requests"):
        rows_of([{"path": "a"}] * 3, Limits(rows=2))
    assert len(rows_of([{"path": "a"}] * 2, Limits(rows=2))) == 2


def test_the_operator_sets_the_limits(tmp_path):
    set_to = {MAXIMA["rows"]: "7", MAXIMA["bytes"]: "8", MAXIMA["pixels"]: "9", FOLDER: str(tmp_path)}
    assert Limits.read(set_to) == Limits(tmp_path.resolve(), 7, 8, 9)
    assert Limits.read({}) == Limits.read(dict.fromkeys([*MAXIMA.values(), FOLDER], "")) == Limits()
    assert Limits().folder is None


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "nan", "inf", "many", " 5", "٣", "9" * 5000])
@pytest.mark.parametrize("name", MAXIMA.values())
def test_a_limit_that_is_no_number_stops_the_server(name, text):
    with pytest.raises(ConfigError, match=f"{name} is .*; expected a whole number from 1 on"):
        Limits.read({name: text})


def test_a_folder_that_is_none_stops_the_server(tmp_path):
    with pytest.raises(ConfigError, match=r"LLBNAD_SERVE_FOLDER is .*gone.*, which is not a folder"):
        Limits.read({FOLDER: str(tmp_path / "gone")})
