"""The runner of `python -m orchestration COMMAND` for an asset. The command reports through Dagster Pipes.

`orchestration.pipeline.pipes` is the commands' side of this. `dagster.PipesSubprocessClient` is not used, because it
signals only the process that it started. Here, cancelling a run ends the whole session of the command. Nor is
`dagster.open_pipes_session`, after which a check without a result is an error, and here it is a skipped check.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.pipes.context import build_external_execution_context_data

from orchestration.assets.failure import CommandError, failing
from orchestration.pipeline.pipes import DESCRIPTION, REFUSED
from orchestration.pipeline.process import running

COMMAND = (sys.executable, "-m", "orchestration")
SHOWN_LINES = 15  # last lines of a failed command that are shown


def run_command(
    context: dg.AssetExecutionContext,
    root: Path,
    arguments: Sequence[str],
    allowed: Collection[int] = (0,),
    show: Callable[[], Mapping[str, Any]] = dict,
    shown_on_checks: bool = True,
) -> dg.MaterializeResult:
    """Run a command in the repository, and write its output to the log of the run.

    Args:
        context: context of the asset.
        root: root of the repository.
        arguments: name and arguments of the command.
        allowed: exit codes after which the command's report counts.
        show: returns metadata of the files that the command wrote, such as pictures.
        shown_on_checks: whether the checks show these too, or the asset alone.

    Raises:
        Stopped: the command ended with another exit code; the message holds its last lines.
    """
    lines: list[str] = []
    with (
        _session(context) as session,
        running([*COMMAND, *arguments], root, extra=session.get_bootstrap_env_vars()) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if lines[-1]:
                context.log.info(lines[-1])
        code = process.wait()
    if code not in allowed:
        with failing(context):
            said = "\n".join(lines[-SHOWN_LINES:]) or f"exit code {code} without a word"
            raise CommandError(said, REFUSED in session.get_custom_messages())
    made = dg.PipesClientCompletedInvocation(session).get_materialize_result(implicit_materialization=False)
    shown = show()
    return dg.MaterializeResult(
        data_version=made.data_version,
        metadata={**(made.metadata or {}), **shown},
        check_results=[_described(check, shown if shown_on_checks else {}) for check in made.check_results or ()],
    )


@contextmanager
def _session(context: dg.AssetExecutionContext) -> Iterator[dg.PipesSession]:
    """Open a channel to a command, through temporary files."""
    data = build_external_execution_context_data(context, None)
    handler = dg.PipesMessageHandler(context, dg.PipesTempFileMessageReader())
    with dg.PipesTempFileContextInjector().inject_context(data) as sent, handler.handle_messages() as received:
        yield dg.PipesSession(data, handler, sent, received, context)


def _described(check: dg.AssetCheckResult, shown: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Return the check with its description where Dagster shows it, and with the metadata `shown`."""
    metadata = dict(check.metadata)
    description = metadata.pop(DESCRIPTION)
    return dg.AssetCheckResult(
        passed=check.passed,
        check_name=check.check_name,
        severity=check.severity,
        description=str(description.value),
        metadata={**metadata, **shown},
    )
