"""Progress with an ETA: a bar on a terminal; in a log file one line per minute, and nothing of what takes less."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

LOG_SECONDS = 60.0
LOG_LINE = "{desc}: {n_fmt} of {total_fmt} ({unit}), {elapsed} gone, {remaining} left"


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "image") -> Iterator[T]:
    """Yield `items` and show count, time gone and time left on standard error; on a terminal also the rate."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total, unit=unit, mininterval=0.2, dynamic_ncols=True)
        return
    yield from tqdm(
        items, desc=description, total=total, unit=unit, mininterval=LOG_SECONDS, delay=LOG_SECONDS, miniters=1,
        bar_format=LOG_LINE,
    )  # fmt: skip
