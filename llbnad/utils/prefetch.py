"""Reading and decoding of files in threads, a few batches ahead, so that the encoder does not wait for them."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # batches: enough that one slow file delays nothing, few enough that the waiting images take little memory
AT_ONCE = 64  # items of a batch of `each`


def prefetch(load: Callable[[T], R], batches: Iterable[Sequence[T]]) -> Iterator[list[R]]:
    """Yield the results of `load` for each batch, in order, while threads load the next batches.

    There are as many threads as torch uses (`Runtime.threads`), or as cores where torch is not imported. An error of
    `load` is raised in the place of its result.
    """
    torch = sys.modules.get("torch")
    threads = os.cpu_count() if torch is None else torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[R]]] = deque()
        for batch in batches:
            waiting.append([pool.submit(load, item) for item in batch])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def each(load: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield the results of `load` for the items, in order, a few batches ahead: results do not pile up in memory."""
    starts = range(0, len(items), AT_ONCE)
    for results in prefetch(load, (items[start : start + AT_ONCE] for start in starts)):
        yield from results
