"""Progress with an ETA, on a terminal and in a log file alike."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None, unit: str = "image") -> Iterator[T]:
    """Yield `items` and show count, rate and ETA on standard error. A log file gets one line every 10 seconds."""
    interval = 0.2 if sys.stderr.isatty() else 10.0
    yield from tqdm(items, desc=description, total=total, unit=unit, mininterval=interval, dynamic_ncols=True)
