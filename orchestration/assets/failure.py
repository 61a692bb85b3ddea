"""An error of ours as Dagster's: the run fails with its message, and is not tried again, which would not help.

Waiting for others needs no word from Dagster: `orchestration.pipeline.busy` waits below, for every door.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from llbnad.errors import LlbnadError


@contextmanager
def failing() -> Iterator[None]:
    """Turn an `LlbnadError` of the block into a `dagster.Failure`."""
    try:
        yield
    except LlbnadError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
