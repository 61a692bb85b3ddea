"""Our errors as Dagster's errors: the run fails with the message alone.

Dagster shows a stack trace below each `Failure`. It leaves out the trace of a `DagsterUserCodeExecutionError`, whose
cause says what is wrong, and our errors have no trace of their own: each says all that is to be known in one line.

Dagster need not wait for other processes: `orchestration.pipeline.busy` waits for every door. Where several machines
work, Dagster starts a failed run again, since a machine may have died. What will fail again is not started again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from llbnad.errors import LlbnadError
from orchestration.pipeline.pipes import WILL_COME_AGAIN
from orchestration.pipeline.repro import StageError
from orchestration.slices.refs import NoDataError, OvertakenError


class Stopped(dg.DagsterUserCodeExecutionError):
    """A step has ended because of an `LlbnadError`, which is the cause of this one."""


class CommandError(LlbnadError):
    """A command has failed; the message holds what it said last.

    Args:
        message: what it said.
        refused: whether it would fail again, as it reported.
    """

    def __init__(self, message: str, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


Context = dg.OpExecutionContext | dg.AssetExecutionContext | dg.AssetCheckExecutionContext

NO_RETRY = {"dagster/retry_on_asset_or_op_failure": "false"}  # tag of a run


@contextmanager
def failing(context: Context) -> Iterator[None]:
    """Raise `Stopped` for an `LlbnadError` in the block; the run of `context` is not retried if that cannot help."""
    try:
        yield
    except LlbnadError as error:
        if _will_fail_again(error):
            context.instance.add_run_tags(context.run.run_id, NO_RETRY)
        error.__cause__, error.__suppress_context__ = None, True  # what led to it is no news to people
        stopped = Stopped("for the reason below", user_exception=error, original_exc_info=(type(error), error, None))
        raise stopped from error.with_traceback(None)


def _will_fail_again(error: LlbnadError) -> bool:
    if isinstance(error, StageError | CommandError):
        return error.refused
    return isinstance(error, (*WILL_COME_AGAIN, NoDataError, OvertakenError))
