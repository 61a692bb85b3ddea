"""The common part of all property-based tests: how examples are drawn, and that only errors of our own may come out."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from llbnad.errors import LlbnadError

SECONDS = 10  # any longer is a hang


def examples(count: int) -> settings:
    """Return settings that draw the same `count` examples each time."""
    phases = [phase for phase in Phase if phase != Phase.explain]  # it takes minutes
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        derandomize=True,
        database=None,
        max_examples=count,
        deadline=1000 * SECONDS,
        suppress_health_check=slow,
        phases=phases,
    )


def refused(work: Callable[..., Any], *arguments: Any) -> bool:
    """Return whether `work` raises an error of our own, in words. Any other error, or a hang, passes through."""
    with _alarm():
        try:
            work(*arguments)
        except LlbnadError as error:
            assert str(error).strip(), f"{type(error).__name__} without a word"
            return True
    return False


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"hangs for more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def everything(folder: Path) -> dict[str, int]:
    """Return the size of every file and folder below `folder`, by path."""
    return {str(path): path.lstat().st_size * path.is_file() for path in folder.rglob("*")}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return `content` with flipped bits, a part cut out, bytes put in or the end cut off."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(found) - 1)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "end"]))
        if kind == "flip" and found:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del found[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            found[place:place] = draw(st.binary(min_size=1, max_size=20))
        else:
            del found[place:]
    return bytes(found)
