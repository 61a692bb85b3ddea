"""`dvc repro` of chosen stages: one process for all of them, and an event per stage as soon as the stage has ended."""

import queue
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Literal

from orchestration.pipeline import dvc
from orchestration.pipeline.busy import BusyError, wait
from orchestration.pipeline.summary import REFUSED

Outcome = Literal["ran", "restored from cache", "unchanged"]
# Sentences, since `dvc repro` says nowhere else what it did: it prints no JSON, and dvc.lock is the same after a stage
# that ran, was restored or was left alone, if the bytes are. Looking at dvc.lock and all outputs before and after would
# cost more than dvc itself does for a stage without work. Its version is pinned, and an unknown sentence is an error.
OUTCOMES: dict[str, Outcome] = {
    r"Running stage '(.+)':": "ran",
    r"Stage '(.+)' is cached - skipping run": "restored from cache",
    r"Stage '(.+)' didn't change, skipping": "unchanged",
}
ADVICE = (">", "Updating", "Generating", "Use `dvc", "To ", "\t")  # how dvc's lines begin that say nothing of a stage
FAILED = re.compile(r"failed to reproduce '(.+?)'")

Event = tuple[str, Outcome]  # a stage and what dvc did with it
Log = Callable[[str], None]


class StageError(dvc.DvcError):
    """A stage failed; the message holds the end of what it printed.

    Args:
        stage: its name.
        message: what it printed.
        refused: whether it would fail again, as it said by its exit code.
    """

    def __init__(self, stage: str, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.stage, self.refused = stage, refused


def repro_stage(root: Path, stage: str, log: Log, extra: Mapping[str, str] | None = None) -> Outcome:
    """Reproduce one stage as `repro_stages` does, and return what dvc did with it."""
    ((_, outcome),) = repro_stages(root, [[stage]], log, extra)
    return outcome


def repro_stages(
    root: Path, shares: Sequence[Sequence[str]], log: Log, extra: Mapping[str, str] | None = None
) -> Generator[Event, None, None]:
    """Reproduce stages, without the stages before them; yield each with its outcome when it has ended.

    Each share of the stages is one dvc process, and the shares run side by side. A share ends with its first stage
    that fails; the others go on. The processes have sessions of their own, which end when this iterator is closed or
    interrupted, so that no stage goes on computing after its run was cancelled.

    Args:
        root: root of the repository.
        shares: names in dvc.lock, e.g. `sub_model@a-0`; causes before what depends on them.
        log: called with each line as dvc prints it, without its advice.
        extra: environment variables for dvc and the stages.

    Raises:
        BusyError: another process kept the files busy for too long.
        StageError: a stage failed.
        DvcError: dvc failed before it came to a stage.
    """
    left, attempt = [list(share) for share in shares], 1
    while any(left):
        try:
            for stage, outcome in _attempt(root, [share for share in left if share], log, extra):
                next(share for share in left if stage in share).remove(stage)
                yield stage, outcome
        except BusyError as error:
            wait(error, attempt)
            attempt += 1


def outcome_of(line: str) -> Event | None:
    """Return the stage that a line of `dvc repro` is about and what dvc does with it; None for any other line."""
    for pattern, outcome in OUTCOMES.items():
        if match := re.match(pattern, line):
            return match[1], outcome
    return None


def is_advice(line: str) -> bool:
    """Return whether a line of `dvc repro` is empty, names the command, or advises on git and dvc push."""
    return not line or line.startswith(ADVICE)


@dataclass
class _Share:
    """The stages of one dvc process that have not ended, and the words of the one at work."""

    stages: list[str]
    begun: Event | None = None  # a stage that has begun and not ended
    said: list[str] = field(default_factory=list)  # since that stage began

    def hear(self, line: str) -> Iterator[Event]:
        """Read one line; yield the stages that have ended."""
        event = outcome_of(line)
        if event is None:
            self.said.append(line)
            return
        yield from self.ended()
        self.said, self.begun = [line], event
        if event[1] == "unchanged":
            yield from self.ended()

    def ended(self) -> Iterator[Event]:
        """Yield the stage that had begun, since dvc has gone on.

        Raises:
            DvcError: its outputs are not kept.
        """
        if self.begun is not None:
            dvc.raise_if_not_kept(f"stage {self.begun[0]}", "\n".join(self.said))
            self.stages.remove(self.begun[0])
            yield self.begun
            self.begun = None

    def finish(self, code: int, root: Path) -> Iterator[Event]:
        """Yield the stage that had begun, since dvc has ended.

        Raises:
            StageError: a stage failed.
            DvcError: dvc failed, or said nothing known about a stage.
        """
        named = next((match[1] for line in self.said if (match := FAILED.search(line))), None)
        if code == 0 or (self.begun and named not in (None, self.begun[0])):
            yield from self.ended()
        failing = named or (self.begun or self.stages or [""])[0]
        try:
            dvc.raise_if_failed(f"stage {failing}", self.said, code, root)
        except BusyError:
            raise
        except dvc.DvcError as error:
            refused = any(line.endswith(f"exited with {REFUSED}") for line in self.said)
            raise StageError(failing, str(error), refused) from None
        if self.stages:
            raise dvc.DvcError("\n".join([f"dvc said nothing known about stage {self.stages[0]}:", *self.said]))


def _attempt(root: Path, shares: Sequence[Sequence[str]], log: Log, extra: Mapping[str, str] | None) -> Iterator[Event]:
    heard, errors = [_Share(list(share)) for share in shares], list[dvc.DvcError]()
    with ExitStack() as stack:
        processes = [
            stack.enter_context(dvc.running(["--wait-for-lock", "repro", "--single-item", *share], root, extra=extra))
            for share in shares
        ]
        for number, line in _lines(processes):
            if line is not None:
                yield from heard[number].hear(line)  # first, since it tells that the stage before has ended
                if not is_advice(line):
                    log(line)
                continue
            try:
                yield from heard[number].finish(processes[number].wait(), root)
            except dvc.DvcError as error:
                errors.append(error)
    if errors:
        raise next((error for error in errors if not isinstance(error, BusyError)), errors[0])


def _lines(processes: Sequence[Popen[str]]) -> Iterator[tuple[int, str | None]]:
    """Yield (index of the process, line) as the processes print; the line is None when one closes its output."""
    said = queue.Queue[tuple[int, str | None]]()

    def listen(number: int, process: Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put((number, line.rstrip()))
        said.put((number, None))

    for number, process in enumerate(processes):
        threading.Thread(target=listen, args=(number, process), daemon=True).start()
    at_work = len(processes)
    while at_work:
        number, line = said.get()
        at_work -= line is None
        yield number, line
