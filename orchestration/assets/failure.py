"""Our errors as Dagster's errors: the run fails with the message, and is not tried again, because that would not help.

Dagster need not wait for other processes: `orchestration.pipeline.busy` waits for every door.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from llbnad.errors import LlbnadError


@contextmanager
def failing() -> Iterator[None]:
    """Raise `dagster.Failure` for an `LlbnadError` in the block."""
    try:
        yield
    except LlbnadError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
