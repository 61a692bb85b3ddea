"""Our errors as Dagster's errors: the run fails with the message alone.

Dagster shows a stack trace below each `Failure`. It leaves out the trace of a `DagsterUserCodeExecutionError`, whose
cause says what is wrong, and our errors have no trace of their own: each says all that is to be known in one line.

Dagster need not wait for other processes: `orchestration.pipeline.busy` waits for every door.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from llbnad.errors import LlbnadError


class Stopped(dg.DagsterUserCodeExecutionError):
    """A step has ended because of an `LlbnadError`, which is the cause of this one."""


@contextmanager
def failing() -> Iterator[None]:
    """Raise `Stopped` for an `LlbnadError` in the block."""
    try:
        yield
    except LlbnadError as error:
        error.__cause__, error.__suppress_context__ = None, True  # what led to it is no news to people
        stopped = Stopped("for the reason below", user_exception=error, original_exc_info=(type(error), error, None))
        raise stopped from error.with_traceback(None)
