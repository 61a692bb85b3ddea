"""The progress of `dvc repro` for people: each stage, the count of stages and the time that is left."""

import re
import threading
import time
from collections.abc import Sequence

from rich.console import Console

from orchestration.pipeline.repro import is_advice, outcome_of
from orchestration.slices.local_slice import SHARED
from orchestration.slices.state import State

QUIET = re.compile(r"\d%\||Data and pipelines are up to date")  # bars of several slices would run into each other


class Progress:
    """The progress of `dvc repro` for people: each stage, the count of stages and the time that is left.

    Args:
        console: console to print to.
        total: number of stages.
    """

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.seen = self.restored = 0  # stages: with or without work, restored from dvc's cache
        self.ran: list[str] = []  # stages that ran
        self.started = time.monotonic()

    def hear(self, text: str) -> None:
        """Read one line of dvc's output."""
        event = outcome_of(text)
        self.seen += event is not None
        self.restored += event is not None and event[1] == "restored from cache"
        if event and event[1] == "ran":
            elapsed = time.monotonic() - self.started
            left = elapsed / len(self.ran) * (self.total - self.seen + 1) if self.ran else None
            rest = "" if left is None else f", about {left:.0f} s left"
            self.ran.append(event[0])
            self.console.print(f"[bold]\\[{self.seen}/{self.total}] {event[0]}[/bold]  ({elapsed:.0f} s{rest})")
        elif text and not event and not is_advice(text):
            self.console.print(f"  {text}", markup=False)


class SliceProgress(Progress):
    """The progress of several `dvc repro`, one per scenario with something to do.

    The stages that serve all scenarios are told once, not again by every slice.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console, len(SHARED))
        self.scenarios: list[str] = []
        self._quiet: set[str] = set()  # scenarios at a stage that serves all
        self._lock = threading.Lock()

    def begin(self, scenarios: Sequence[str], state: State) -> None:
        """Note the scenarios that may have something to do."""
        self.scenarios = list(scenarios)
        self.total += sum(len(state.stages(scenario)) for scenario in scenarios)
        self.console.print(f"{len(scenarios)} of {len(state.params.scenarios)} scenarios may have something to do")
        covered = {stage for scenario in state.params.scenarios for stage in state.stages(scenario)} | {*SHARED}
        if others := [stage for stage in state.order if stage not in covered]:
            said = "which no scenario needs: `dvc repro` runs them"
            self.console.print(f"left out: {', '.join(others)}, {said}")

    def hear_slice(self, scenario: str, text: str) -> None:
        """Read one line of a slice's dvc."""
        with self._lock:
            if scenario and (event := outcome_of(text)):
                (self._quiet.add if event[0] in SHARED else self._quiet.discard)(scenario)
            if scenario not in self._quiet and not QUIET.search(text):
                self.hear(text)
