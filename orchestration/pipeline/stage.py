"""Run a stage as a command: clear errors, clean-up, refusal of inputs that changed under it."""

import inspect
import math
import signal
import sys
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
from orchestration.pipeline.code import ChangedError

Record = Callable[[], object]  # tells MLflow what a stage made


def run_stage(stage: Callable[..., Record | None]) -> None:
    """Run a stage's function as a command: one clear line and exit code 2 for errors, clean-up when told to end.

    What it returns is called at the very end: nothing is recorded of a stage that DVC will not record either.
    """
    signal.signal(signal.SIGTERM, _end)

    @wraps(stage)
    def run(*arguments: Any, **named: Any) -> None:
        record = stage(*arguments, **named)
        name = Path(inspect.getfile(stage)).stem
        if name != code.STAGE:
            refuse_changed(code.listed_files(Path(), name))
        if record is not None:
            record()

    try:
        typer.run(run)
    except LlbnadError as error:
        print(f"error: {with_advice(error)}", file=sys.stderr)
        sys.exit(2)


def refuse_changed(files: Iterable[Path]) -> None:
    """DVC hashes what a stage depends on when it has ended: it would record a change as what the stage worked with.

    Outputs of other stages need no such care, DVC keeps them locked; nor do settings, which have a copy.

    Args:
        files: files and folders; a folder changes when an entry comes or goes.

    Raises:
        ChangedError: one of them has changed since this process started.
    """
    for file in files:
        if _changed_at(file) > orchestration.STARTED:
            raise ChangedError(f"{file} has changed while the stage ran, so its outputs are not recorded: run again")


def _changed_at(file: Path) -> float:
    """Its change time, which no tool and no camera's clock sets: a file copied or moved here has one of today."""
    try:
        return max(file.lstat().st_ctime, file.stat().st_ctime)
    except FileNotFoundError:
        return file.lstat().st_ctime if file.is_symlink() else math.inf
    except OSError:  # nobody may look at it, nor could the stage
        return 0.0


def _end(number: int, frame: FrameType | None) -> None:
    # an exception, so that temporary files are removed on the way out
    raise SystemExit(128 + number)
