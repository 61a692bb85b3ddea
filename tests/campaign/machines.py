"""`python -m tests.campaign.machines --scenarios 120 --workers 4 --kill-every 10`: machines die, nothing is lost.

Each worker has a clone, a folder and a cache of its own; they share a bare git repository and a folder as DVC's remote.
Whoever is killed loses all of its processes, or the command alone, whose stage then lives on without publishing. Its
scenario goes to the end of the queue, and to whichever worker is free. In the end the union of all slices must be, byte
for byte, the dvc.lock of a machine that worked alone.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tests import warm
from tests.campaign.chain import processes_in
from tests.campaign.kinds import TINY
from tests.conftest import copy_cells
from tests.pipeline.conftest import command, commit, environment, git, make_workspace

ALONE = 1 / 3  # share of the kills that spare what the command has started
SETTLE = 0.2  # seconds between two looks


@dataclass
class Worker:
    """A machine: its clone of the repository, its folder, and the scenario it works on."""

    clone: Path
    folder: Path
    shares: bool  # the clone, with all other workers
    scenario: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self, scenario: str) -> None:
        """Begin to work a scenario; what it prints is added to work.log of the folder."""
        self.scenario = scenario
        with (self.folder / "work.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["python", "-m", "orchestration", "slices", "work", scenario], cwd=self.clone, stdout=log, stderr=log,
                env=environment(self.clone, LLBNAD_MACHINE=str(self.folder)), start_new_session=True,
            )  # fmt: skip

    def kill(self, alone: bool) -> None:
        """Kill the command and, unless `alone`, everything that runs in this machine's folders."""
        assert self.process is not None
        if alone:
            self.process.kill()
        else:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        own = [self.folder] if self.shares else [self.folder, self.clone]
        for number in [] if alone else [number for place in own for number in processes_in(place)]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def main(
    scenarios: Annotated[int, typer.Option(min=1, help="Scenarios, of 40 images each.")] = 120,
    workers: Annotated[int, typer.Option(min=1, help="Machines that work at once.")] = 4,
    kill_every: Annotated[float, typer.Option(min=0.1, help="Seconds between two kills of a random worker.")] = 10,
    seed: Annotated[int, typer.Option(help="Draws whom a kill hits, and how.")] = 0,
    one_clone: Annotated[bool, typer.Option(help="The workers are processes of one machine, in one clone.")] = False,
    whole: Annotated[bool, typer.Option(help="One machine works without slices, which takes hours with 120.")] = False,
) -> None:
    """Work many scenarios on machines that are killed, and compare dvc.lock with that of one machine."""
    end = warm.prepare()
    warm.programs()
    try:
        with tempfile.TemporaryDirectory(prefix="llbnad-machines-") as name:
            base = Path(name).resolve()
            home, names = _home(base, scenarios)
            started = time.monotonic()
            kills = _work(base, names, workers, one_clone, kill_every, random.Random(seed))
            seconds = time.monotonic() - started
            _must(home, "python", "-m", "orchestration", "slices", "collect")
            _must(base / "alone", "python", "-m", "orchestration", "run", *(["--no-slices"] if whole else []))
            same = (home / "dvc.lock").read_bytes() == (base / "alone" / "dvc.lock").read_bytes()
    finally:
        end()
    print(
        f"{scenarios} scenarios on {workers} workers, {kills} killed, {seconds:.0f} s: dvc.lock "
        + ("is that of one machine, byte for byte" if same else "DIFFERS from that of one machine")
    )
    raise typer.Exit(not same)


def _home(base: Path, count: int) -> tuple[Path, list[str]]:
    """Make the repository with its remotes, and a copy for the machine that works alone."""
    copy_cells(base / "cells", 32, 8)
    # each has a seed of its own, so nothing of one is in the cache of another
    scenarios = {f"s{number:03d}": {**TINY, "seed": number} for number in range(count)}
    home = make_workspace(base / "home", {"cells": base / "cells"}, scenarios)
    git(base, "init", "--quiet", "--bare", "origin.git")
    git(home, "remote", "add", "origin", str(base / "origin.git"))
    for arguments in (
        ["remote", "add", "--default", "store", str(base / "store")],
        ["add", "data/own/cells"],
        ["push"],
    ):
        _must(home, "dvc", *arguments)
    commit(home, "data under DVC")
    git(home, "push", "--quiet", "origin", "HEAD")
    shutil.copytree(home, base / "alone", symlinks=True)
    return home, list(scenarios)


def _work(base: Path, names: list[str], count: int, one_clone: bool, kill_every: float, draw: random.Random) -> int:
    """Work all scenarios and return the number of kills."""
    waiting, left, kills = deque(names), len(names), 0
    machines = [
        Worker(base / ("clone" if one_clone else f"clone_{number}"), base / f"m{number}", one_clone)
        for number in range(count)
    ]
    for machine in machines:
        machine.folder.mkdir()
        if not machine.clone.exists():
            git(base, "clone", "--quiet", "origin.git", str(machine.clone))
    started = last = time.monotonic()
    while left:
        for machine in machines:
            if machine.process is None and waiting:
                machine.start(waiting.popleft())
            elif machine.process is not None and (code := machine.process.poll()) is not None:
                machine.process = None
                if code:
                    raise SystemExit(f"{machine.scenario} failed:\n{(machine.folder / 'work.log').read_text()[-3000:]}")
                left -= 1
                rest = (time.monotonic() - started) / (len(names) - left) * left / 60
                print(
                    f"{len(names) - left}/{len(names)} scenarios, {kills} kills, about {rest:.0f} min left", flush=True
                )
        if time.monotonic() - last > kill_every:
            last = time.monotonic()
            if at_work := [machine for machine in machines if machine.process is not None]:
                victim = draw.choice(at_work)
                victim.kill(alone=draw.random() < ALONE)
                victim.process, kills = None, kills + 1
                waiting.append(victim.scenario)
        time.sleep(SETTLE)
    return kills


def _must(folder: Path, *arguments: str) -> None:
    done = command(folder, arguments)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    typer.run(main)
