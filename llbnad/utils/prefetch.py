"""Files are read and decoded in threads, a few batches ahead of the encoder, so that it never waits for them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # batches: a slow file then delays nobody, and what waits is small


def prefetch(load: Callable[[T], R], batches: Iterable[Sequence[T]]) -> Iterator[list[R]]:
    """Yield the results of `load` for each of `batches`, all in order, while the next ones are worked on.

    As many threads as torch computes with: `runtime` in params.yaml decides. An error of `load` is raised where the
    result would have been.
    """
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        waiting: deque[list[Future[R]]] = deque()
        for batch in batches:
            waiting.append([pool.submit(load, item) for item in batch])
            if len(waiting) > AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
