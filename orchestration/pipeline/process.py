"""Programs in process sessions of their own. A session ends as a whole, so no program outlives its caller."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

TERMINATE_SECONDS = 15  # time that a program has to end before it is killed
KEPT_BYTES = 2**24  # size of the end of standard error that is kept: an error may stand before long progress bars
JOIN_SECONDS = 5


@contextmanager
def running(
    command: Sequence[str], root: Path, extra: Mapping[str, str] | None = None, **popen: Any
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` in its own process session and end that session when the block exits.

    Args:
        command: the program and its arguments.
        root: working directory.
        extra: environment variables beside those of `environment`.
        popen: further arguments of `subprocess.Popen`; by default, one pipe carries standard output and error.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **popen}
    process = subprocess.Popen(
        command, cwd=root, env={**environment(), **(extra or {})}, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end_session(process)


def environment() -> dict[str, str]:
    """Return the environment of dvc and our commands: their `python` is this one, and output comes line by line."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


@contextmanager
def echoed_stderr() -> Iterator[tuple[int, bytearray]]:
    """Yield a file descriptor for a program's standard error, and the end of what was written to it so far.

    What the program writes appears on our own standard error at once. Where that is a terminal the program gets a
    terminal too, so its progress bars look the same.
    """
    on_terminal = sys.stderr.isatty()
    reader, writer = pty.openpty() if on_terminal else os.pipe()
    if on_terminal:
        termios.tcsetwinsize(writer, termios.tcgetwinsize(sys.stderr.fileno()))
    kept = bytearray()

    def echo() -> None:
        try:
            while chunk := os.read(reader, 2**16):
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()
                kept.extend(chunk)
                del kept[:-KEPT_BYTES]
        except OSError:
            pass  # a terminal without a writer ends like this on Linux

    thread = Thread(target=echo, daemon=True)
    thread.start()
    try:
        yield writer, kept
    finally:
        os.close(writer)
        thread.join(JOIN_SECONDS)
        if not thread.is_alive():  # a living thread means that another process still holds the other end
            os.close(reader)


def _end_session(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to all processes of the session, so that stages remove temporary files, and SIGKILL if any stays."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + TERMINATE_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # reaps the leader, which would count as alive otherwise
            os.killpg(process.pid, 0)
            if not _is_alive(process.pid):
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all have ended
    process.wait()


def _is_alive(session: int) -> bool:
    """Return whether a process of the session is alive: one that ended may keep its number, if nobody reaps it."""
    for number in psutil.pids():
        try:
            if os.getpgid(number) == session and psutil.Process(number).status() != psutil.STATUS_ZOMBIE:
                return True
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return False
