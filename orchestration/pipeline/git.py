"""git, as a program: it asks nothing, and what it says is English and fits one line."""

import os
import subprocess
from pathlib import Path


def run_git(
    root: Path, *arguments: str, given: str | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `git …` in `root`, whether it succeeds or not.

    Args:
        root: a folder of the repository.
        arguments: those of git.
        given: its standard input.
        timeout: seconds; None waits for ever.

    Raises:
        OSError: there is no git.
        subprocess.TimeoutExpired: it took longer.
    """
    environ = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(
        ["git", *arguments], cwd=root, env=environ, input=given, capture_output=True, text=True, timeout=timeout
    )


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a git that failed said, on one line."""
    return " ".join((done.stderr or done.stdout).split())
