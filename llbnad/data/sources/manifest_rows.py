"""The rows of a manifest file, a CSV or JSON-lines file, as texts by column, each with its number in the file.

A CSV may come from a spreadsheet: with a byte-order mark, in UTF-16, with semicolons or tabs between the cells, with a
first line `sep=;`. Its rows are counted as a spreadsheet counts them: the header is row 1. In a JSON-lines file, each
line is one object; a JSON file may also hold one list of objects.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llbnad.errors import DataError
from llbnad.utils.files import refuse_special

COLUMNS = ("path", "label", "split", "mask", "group")
SEPARATORS = (",", ";", "\t")
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})  # as spreadsheets and data frames write no value
BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Row:
    """One row of a manifest file."""

    number: int
    cells: dict[str, list[str]]  # by column: no text if empty, several of a JSON list
    trouble: str = ""  # why the row cannot be read


def read_rows(file: Path) -> tuple[list[Row], list[str]]:
    """Return the rows of a manifest file that are not empty, and the names of its columns that are not read.

    Raises:
        DataError: the file is missing, not text, or without a column `path`.
    """
    text = _text(file)
    if file.suffix.lower() in JSON_SUFFIXES:
        return _json_rows(file, text)
    return _csv_rows(file, text)


def _text(file: Path) -> str:
    refuse_special(file, "a CSV or JSON-lines file that names images")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"the manifest file {file} cannot be read: {error.strerror}") from None
    encoding = next((encoding for bom, encoding in BOMS.items() if content.startswith(bom)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{file}, line {line}: not UTF-8; save it as UTF-8 (in a spreadsheet: CSV UTF-8)") from None


def _csv_rows(file: Path, text: str) -> tuple[list[Row], list[str]]:
    lines = text.splitlines(keepends=True)
    skipped = 1 if lines and lines[0].strip().lower().startswith("sep=") else 0
    first = lines[skipped] if len(lines) > skipped else ""
    headers = {separator: next(csv.reader([first], delimiter=separator), []) for separator in SEPARATORS}
    named = {separator: [cell.strip().lower() for cell in cells] for separator, cells in headers.items()}
    separator = next((separator for separator, header in named.items() if "path" in header), None)
    if separator is None:
        wanted = f"expected a header with path and, if wanted, {', '.join(COLUMNS[1:])}"
        raise DataError(f"{file} has no column path; its first line is {first.strip()[:100]!r}: {wanted}")
    header = named[separator]
    doubled = next((name for name in header if name and header.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{file} has the column {doubled} twice: remove one")
    rows = list(_cells(file, "".join(lines[skipped:]), separator, header, skipped))
    return rows, [name for name in header if name and name not in COLUMNS]


def _cells(file: Path, text: str, separator: str, header: Sequence[str], skipped: int) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number = skipped
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(f"{file}, row {number}: a quote is opened and never closed: remove it") from None
            yield Row(number, {}, f"cannot be read: {error}")
            continue
        if number == skipped + 1 or not any(cell.strip() for cell in cells):
            continue
        trouble = ""
        if any(cell.strip() for cell in cells[len(header) :]):
            trouble = f"has {len(cells)} cells, the header {len(header)}: put texts with {separator!r} in quotes"
        found = {name: _filled([cell]) for name, cell in zip(header, cells, strict=False) if name in COLUMNS}
        yield Row(number, found, trouble)


def _json_rows(file: Path, text: str) -> tuple[list[Row], list[str]]:
    rows, unread = [], set()
    for number, content in _json_objects(text):
        if not (isinstance(content, list) and all(isinstance(pair, tuple) for pair in content)):
            rows.append(Row(number, {}, 'is not a JSON object such as {"path": "a.png"}'))
            continue
        pairs = [(name.strip().lower(), value) for name, value in content]
        unread |= {name for name, _ in pairs if name not in COLUMNS}
        rows.append(_json_row(number, [pair for pair in pairs if pair[0] in COLUMNS]))
    if not any("path" in row.cells for row in rows):
        raise DataError(f"{file} has no key path in any of its lines; expected one JSON object per line, with path")
    return rows, sorted(unread)


def _json_objects(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the objects of one list, or those of each line, with their numbers; None for what is no JSON."""
    whole = _json(text) if text.lstrip().startswith("[") else None
    if isinstance(whole, list) and whole:
        yield from enumerate(whole, start=1)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _json(line)


def _json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=list)  # a mapping becomes a list of pairs, which shows doubled keys
    except (ValueError, RecursionError):
        return None


def _json_row(number: int, pairs: Sequence[tuple[str, Any]]) -> Row:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name in found:
            return Row(number, found, f"has the key {name} twice")
        values = value if isinstance(value, list) and name == "mask" else [value]
        texts = ["" if one is None or one != one else one for one in values]  # NaN is not equal to itself
        if name == "group":  # the number of a part is a name
            texts = [str(one) if type(one) is int else one for one in texts]
        found[name] = []
        for text in texts:
            if not isinstance(text, str) or not _is_text(text):
                return Row(number, found, f"{name} is {ascii(text)[:80]}; expected a text")
        found[name] = _filled(texts)
    return Row(number, found)


def _is_text(text: str) -> bool:
    """Return whether a text can be written: JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _filled(texts: Sequence[str]) -> list[str]:
    return [text.strip() for text in texts if text.strip().lower() not in EMPTY]
