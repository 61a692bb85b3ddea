"""Slices at work: on this machine several at once, each collected when it is done; on a worker one after another."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from llbnad.errors import LlbnadError
from orchestration.pipeline import lock_blocks
from orchestration.pipeline.busy import BusyError, retry_when_busy
from orchestration.pipeline.left_behind import dvc_processes
from orchestration.pipeline.params import Params
from orchestration.pipeline.repro import Event, repro_stages
from orchestration.slices import worker_slice
from orchestration.slices.local_slice import FOLDER, SHARED, bring_home, open_shared, open_slice
from orchestration.slices.state import State

Hear = Callable[[str, str], None]  # called with a scenario, or "" for what serves all, and a line of dvc


class StoppedError(LlbnadError):
    """The run was interrupted."""


@retry_when_busy
def run_here(root: Path, params: Params, begin: Callable[[Sequence[str], State], None], hear: Hear) -> dict[str, str]:
    """Work all scenarios that have something to do through slices, `runtime.processes` at once, and collect them.

    Args:
        root: root of the repository.
        params: content of its params.yaml.
        begin: called with the scenarios that may have something to do.
        hear: called with each line of dvc, by one thread per process.

    Returns:
        The reason by scenario that failed; its finished stages are collected.

    Raises:
        BusyError: another run works through slices here.
        ConfigError: a path leaves the repository.
        DvcError: a stage that serves all scenarios failed.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    try:
        alone = FileLock(root / FOLDER / "lock").acquire(blocking=False)
    except Timeout:
        raise BusyError("another run works through slices in this workspace") from None
    with alone:
        first = renew_shared(root, lambda line: hear("", line))
        state = State(root, params)
        wanted = state.pending()
        begin(wanted, state)
        return _Run(root, params, state, first, hear).work(wanted)


def renew_shared(root: Path, hear: Callable[[str], None]) -> list[str]:
    """Bring the stages that serve all scenarios up to date in the workspace.

    Returns:
        The stages that dvc.lock had before, which keep their place in it.

    Raises:
        DvcError: one of them failed.
    """
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    with FileLock(root / FOLDER / "shared.lock"):  # runs of several scenarios need it at the same moment
        place, before = open_shared(root)
        for _ in repro_stages(place, [SHARED], hear):
            pass
        bring_home(root, place, SHARED, SHARED, before)
    return before


def work(root: Path, machine: Path, scenario: str, hear: Callable[[str], None]) -> list[Event]:
    """Take a scenario, work all its stages on this machine and publish each one when it is finished.

    Args:
        root: a clone of the repository.
        machine: folder of the machine.
        scenario: name in params.yaml.
        hear: called with each line of dvc.

    Returns:
        All stages, with what dvc did with each.

    Raises:
        OvertakenError: another worker has taken it over.
        SliceError: it cannot be taken.
        DvcError: a stage failed, or its bytes could not be pushed; the stages before it are published.
    """
    place, events = worker_slice.take(root, machine, scenario), []
    try:
        with closing(repro_stages(place, [lock_blocks.stage_names(place)], hear)) as stages:
            for stage, outcome in stages:
                events.append((stage, outcome))
                worker_slice.publish(place, [stage])
    finally:
        worker_slice.release(place)
    return events


class _Run:
    """Scenarios at work in slices of this machine.

    Args:
        root: root of the repository.
        params: content of its params.yaml.
        state: the workspace before the run.
        first: the stages that keep their place in dvc.lock.
        hear: called with a scenario and a line of dvc.
    """

    def __init__(self, root: Path, params: Params, state: State, first: Sequence[str], hear: Hear) -> None:
        self.root, self.params, self.state, self.first, self.hear = root, params, state, first, hear
        self.stopped = threading.Event()
        self.ended: dict[str, list[str]] = {}  # stages that have ended in this run, by scenario

    def work(self, scenarios: Sequence[str]) -> dict[str, str]:
        """Work the scenarios and collect each one when it is done; return the reason by scenario that failed."""
        failed, started = {}, time.time()
        with ThreadPoolExecutor(self.params.runtime.processes) as pool:
            futures = {pool.submit(self._work_one, scenario): scenario for scenario in scenarios}
            try:
                for future in as_completed(futures):
                    scenario = futures[future]
                    try:
                        future.result()
                    except LlbnadError as error:
                        failed[scenario] = str(error)
                    stages = [stage for stage in self.ended.get(scenario, []) if stage not in SHARED]
                    bring_home(self.root, self.root / FOLDER / scenario, stages, self.state.order, self.first)
                    if scenario not in failed:
                        State(self.root, self.params).settle(scenario, started)
            except BaseException:  # Ctrl-C as well: no process of a slice outlives the run
                self._stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {scenario: failed[scenario] for scenario in scenarios if scenario in failed}

    def _work_one(self, scenario: str) -> None:
        place, ended = open_slice(self.root, scenario, self.params), self.ended.setdefault(scenario, [])

        def listen(line: str) -> None:
            if self.stopped.is_set():
                raise StoppedError("interrupted")
            self.hear(scenario, line)

        for stage, _ in repro_stages(place, [lock_blocks.stage_names(place)], listen):
            ended.append(stage)

    def _stop(self) -> None:
        """End the processes of all slices; their threads end with them."""
        self.stopped.set()
        for number in dvc_processes(self.root / FOLDER):
            with suppress(ProcessLookupError):
                os.killpg(number, signal.SIGTERM)  # each leads a session of its own
