"""One chain: a command that is killed a few times in a row, and then may finish."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.campaign.kinds import Kind
from tests.campaign.outputs import difference, outputs
from tests.pipeline.conftest import environment

MOST_KILLS = 5  # in a row
LONGER = 5  # times the undisturbed duration that a command may take before it counts as hanging
LEAST_PATIENCE = 180  # seconds
HANGS = -1000  # no exit code of a process
LAST_SECONDS = 60  # for what a killed command had started
SETTLE = 0.02  # seconds between two looks at the processes of a workspace
BAD_WORDS = ("Traceback (most recent call last)", "did not record")


@dataclass(frozen=True)
class Kill:
    """One kill, and what became of the command that was given after it."""

    number: int  # in the chain, from 1
    seconds: float  # after the command's start
    reach: str  # whom it killed: `all` processes of the workspace, or the `command` alone, whose children live on
    message: str = ""  # what went wrong afterwards; empty: it held

    @property
    def held(self) -> bool:
        """Whether the command went on as if nothing had happened."""
        return not self.message


def run_chain(
    folder: Path, kind: Kind, wanted: Mapping[str, str], duration: float, draw: random.Random, most: int
) -> list[Kill]:
    """Kill a command in a fresh workspace up to `most` times, let it finish, and return the kills.

    A command that fails or ends otherwise than undisturbed counts against the kill right before it.

    Args:
        folder: the workspace.
        kind: what is killed.
        wanted: `outputs` of an undisturbed run.
        duration: seconds that an undisturbed run takes.
        draw: gives the number of kills and their moments.
        most: largest number of kills.
    """
    kills: list[Kill] = []
    spent = 0.0
    for number in range(1, min(draw.randint(1, MOST_KILLS), most) + 1):
        # what was done before is not done again, so later kills come earlier
        moment = draw.random() * max(duration - spent, duration / 4)
        reach = "command" if draw.random() < kind.alone else "all"
        spent += moment
        code, said = _run(folder, kind.command, moment, reach)
        if code is not None:  # it was done, or went wrong, before its moment came
            break
        kills.append(Kill(number, moment, reach))
    else:
        code, said = _run(folder, kind.command, max(LONGER * duration, LEAST_PATIENCE))
        code = HANGS if code is None else code
    message = _judge(folder, wanted, code, said)
    if kills:
        kills[-1] = replace(kills[-1], message=message)
    elif message:
        raise RuntimeError(f"{' '.join(kind.command)} does not give the same outputs twice, undisturbed: {message}")
    return kills


def timed(folder: Path, kind: Kind) -> float:
    """Run a command undisturbed and return the seconds that it took."""
    started = time.monotonic()
    code, said = _run(folder, kind.command, 3600)
    assert code == 0, said[-3000:]
    return time.monotonic() - started


def _run(folder: Path, command: Sequence[str], seconds: float, reach: str = "all") -> tuple[int | None, str]:
    """Run a command, and kill it after `seconds`. Return its exit code, None if it was killed, and what it said."""
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            if reach == "all":
                kill_all(folder)
            process.wait()
            code = None
        except BaseException:  # somebody stops the campaign
            kill_all(folder)
            raise
    return code, log.read_text(errors="replace")


def _judge(folder: Path, wanted: Mapping[str, str], code: int | None, said: str) -> str:
    """Return what is wrong with the end of a chain, as one line; empty if nothing is."""
    if code == HANGS:
        return f"the command hangs: {_end(said)}"
    if code != 0:
        return f"exit code {code}: {_end(said)}"
    deadline = time.monotonic() + LAST_SECONDS
    while left := processes_in(folder.resolve()):
        if time.monotonic() > deadline:
            kill_all(folder)
            return f"{len(left)} processes live on {LAST_SECONDS} s after the end of the command"
        time.sleep(SETTLE)
    bad = next((line for line in said.splitlines() if any(words in line for words in BAD_WORDS)), "")
    return difference(wanted, outputs(folder)) or bad


def _end(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-4:])[-500:]


def kill_all(folder: Path) -> None:
    """Kill every process that works in a folder, whatever session it is in, until none is left."""
    folder = folder.resolve()
    quiet = 0
    while quiet < 3:  # a process may have been starting another one
        found = processes_in(folder)
        quiet = 0 if found else quiet + 1
        for number in found:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(SETTLE)


def processes_in(folder: Path) -> list[int]:
    """Return the ids of running processes whose working directory is `folder` or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            inside = entry.name.isdigit() and (entry / "cwd").resolve().is_relative_to(folder)
            if inside and (entry / "exe").exists():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile, or belongs to another user
    return found
