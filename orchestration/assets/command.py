"""Run `python -m orchestration COMMAND` for an asset; what the command reports comes back through Dagster Pipes.

The commands' side is `orchestration.pipeline.pipes`. `dagster.PipesSubprocessClient` is not used, because it signals
only the process that it started: here, cancelling a run ends the command's whole session.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.pipeline.pipes import DESCRIPTION
from orchestration.pipeline.process import running

COMMAND = (sys.executable, "-m", "orchestration")
SHOWN_LINES = 15  # of a command that failed


def run_command(
    context: dg.AssetExecutionContext,
    root: Path,
    arguments: Sequence[str],
    allowed: Collection[int] = (0,),
    show: Callable[[], Mapping[str, Any]] = dict,
) -> dg.MaterializeResult:
    """Run a command in the repository; its lines go to the run's log.

    Args:
        context: the asset's.
        root: the repository.
        arguments: the command's name and arguments.
        allowed: exit codes after which its report counts.
        show: metadata of the files it wrote, such as pictures: shown with the asset and with its checks.

    Raises:
        Failure: another exit code; the message is what the command said last.
    """
    lines: list[str] = []
    with (
        dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()) as session,
        running([*COMMAND, *arguments], root, extra=session.get_bootstrap_env_vars()) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            context.log.info(lines[-1])
        code = process.wait()
    if code not in allowed:
        raise dg.Failure("\n".join(lines[-SHOWN_LINES:]) or f"exit code {code} without a word", allow_retries=False)
    made = dg.PipesClientCompletedInvocation(session).get_materialize_result(implicit_materialization=False)
    shown = show()
    return dg.MaterializeResult(
        data_version=made.data_version,
        metadata={**(made.metadata or {}), **shown},
        check_results=[_described(check, shown) for check in made.check_results or ()],
    )


def _described(check: dg.AssetCheckResult, shown: Mapping[str, Any]) -> dg.AssetCheckResult:
    """Return the check with its description where Dagster shows it, and with what is `shown`."""
    metadata = dict(check.metadata)
    description = metadata.pop(DESCRIPTION)
    return dg.AssetCheckResult(
        passed=check.passed,
        check_name=check.check_name,
        severity=check.severity,
        description=str(description.value),
        metadata={**metadata, **shown},
    )
