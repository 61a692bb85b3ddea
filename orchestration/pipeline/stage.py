"""The runner of a stage as a command: clear errors, clean-up, and refusal of damaged inputs or of such as changed."""

import inspect
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import typer

import orchestration
from llbnad.errors import LlbnadError
from orchestration.pipeline import code
from orchestration.pipeline.advice import with_advice
from orchestration.pipeline.code import ChangedMeanwhileError
from orchestration.pipeline.summary import REFUSED
from orchestration.pipeline.verify import refuse_damaged_inputs

CLOCK_SECONDS = 60.0  # two clocks, as of this machine and of a file server, differ by less

Recorder = Callable[[], object]  # tells MLflow what a stage made


def run_stage(stage: Callable[..., Recorder | None]) -> None:
    """Run a stage's function as a command. An error prints one clear line; SIGTERM cleans up.

    The exit code is `REFUSED` if the stage would fail again, and the usual one of a passing failure (`os.EX_TEMPFAIL`)
    if it may succeed next time or on another machine.

    A function that the stage returns is called at the very end, so that MLflow records nothing that DVC will not
    record.
    """
    signal.signal(signal.SIGTERM, _end)

    @wraps(stage)
    def run(*arguments: Any, **named: Any) -> None:
        name = Path(inspect.getfile(stage)).stem
        refuse_damaged_inputs(Path(), name, [str(value) for value in (*arguments, *named.values())])
        record = stage(*arguments, **named)
        if name != code.STAGE:
            refuse_changed(code.listed_files(Path(), name))
        if record is not None:
            record()

    try:
        typer.run(run)
    except LlbnadError as error:
        print(f"error: {with_advice(error)}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL if isinstance(error, ChangedMeanwhileError) else REFUSED)
    except OSError as error:  # a full disk, a folder that is not writable
        print(f"error: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)


def refuse_changed(files: Iterable[Path]) -> None:
    """Refuse dependencies of a stage that have changed while it ran.

    DVC hashes the dependencies when a stage has ended, so it would record a changed file as the input of the stage.
    This check is not needed for outputs of other stages, which DVC keeps locked, or for settings, which have a copy.

    Args:
        files: files and folders; a folder changes if an entry is added or removed.

    A change in the future was made before the clock was set back. It counts only if that happened while the stage ran.

    Raises:
        ChangedMeanwhileError: a file has changed since this process started.
    """
    now = time.time()
    lost = (time.monotonic() - orchestration.STARTED_MONOTONIC) - (now - orchestration.STARTED)  # by setting the clock
    latest = math.inf if lost > CLOCK_SECONDS else now + CLOCK_SECONDS
    for file in files:
        changed = _changed_at(file)
        if changed == math.inf or orchestration.STARTED < changed <= latest:
            raise ChangedMeanwhileError(
                f"{file} has changed while the stage ran, so its outputs are not recorded: run again"
            )


def _changed_at(file: Path) -> float:
    """Return the change time of a file. Neither tools nor a camera's clock set it, so copying or moving renews it."""
    try:
        return max(file.lstat().st_ctime, file.stat().st_ctime)
    except FileNotFoundError:
        return file.lstat().st_ctime if file.is_symlink() else math.inf
    except OSError:  # the file cannot be examined, so the stage could not read it either
        return 0.0


def _end(number: int, frame: FrameType | None) -> None:
    # an exception, so that temporary files are removed on the way out
    raise SystemExit(128 + number)
