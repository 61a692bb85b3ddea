"""Tables and texts for people, in the form that Dagster shows, whoever sends them."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

MARKDOWN = re.compile(r"[\\`*_<>\[\]#|~]")  # signs that would change the look of a text
Cell = str | int | float | bool | None


class PlainTable(NamedTuple):
    """Records and the type of each column: string, int, float or bool."""

    records: list[dict[str, Cell]]
    types: dict[str, str]


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> PlainTable:
    """Make a table of `rows`, each with one value per column.

    A value that is missing or not a number becomes an empty cell. Numbers are rounded (`for_people`). A column
    whose values are not all numbers or all truth values becomes text.
    """
    cells = [[_plain(value) for value in row] for row in rows]
    types = {name: _type([row[number] for row in cells]) for number, name in enumerate(columns)}
    records = [
        {
            name: str(value) if types[name] == "string" and value is not None else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in cells
    ]
    return PlainTable(records, types)


def escaped(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    return MARKDOWN.sub(lambda sign: f"\\{sign[0]}", text)


def for_people(value: float) -> float:
    """Return a number with four significant digits, but no digit before the point lost; a whole number as it is."""
    if not isinstance(value, float) or not math.isfinite(value) or value == int(value):
        return value
    return round(value, 1) if abs(value) >= 1000 else float(f"{value:.4g}")


def _plain(value: Any) -> Cell:
    value = value.item() if hasattr(value, "item") else value  # numpy's scalars
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return for_people(value) if isinstance(value, int | float) else str(value)


def _type(column: Sequence[Cell]) -> str:
    kinds = {type(value) for value in column if value is not None}
    for name, allowed in (("bool", {bool}), ("int", {int}), ("float", {int, float})):
        if kinds and kinds <= allowed:
            return name
    return "string"
