"""Waiting for other processes that work on the same files. Every door waits and tries again in the same way.

Adding data to DVC, reproducing a stage, reproducing all stages and taking in a line's images are decorated with
`retry_when_busy`, whoever starts them: a command, Dagster or a schedule.
"""

import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from llbnad.errors import LlbnadError

ATTEMPTS, SECONDS = 120, 5  # ten minutes in all: a stage may be reading the same images

P = ParamSpec("P")
T = TypeVar("T")


class BusyError(LlbnadError):
    """Another process works on the same files. Try again later."""


def retry_when_busy(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that may raise `BusyError`, so that it is called again every `SECONDS` until it succeeds.

    After `ATTEMPTS` calls, the error is raised.
    """

    @wraps(work)
    def patient(*args: P.args, **kwargs: P.kwargs) -> T:
        attempt = 1
        while True:
            try:
                return work(*args, **kwargs)
            except BusyError as error:
                wait(error, attempt)
                attempt += 1

    return patient


def wait(error: BusyError, attempt: int) -> None:
    """Wait before the next attempt. Raise `error` if this attempt, counted from one, was the last one."""
    if attempt == ATTEMPTS:
        raise error
    if attempt == 1:
        print(f"waiting: {error}", file=sys.stderr, flush=True)
    time.sleep(SECONDS)
