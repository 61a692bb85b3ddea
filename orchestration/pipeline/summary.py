"""A stage's summary of its own run: as text for people, and as data for the program that started it.

Numbers of a run, such as the number of images found in the cache, differ from run to run, so they are no output of a
stage. The program that starts `dvc repro` may name a file in an environment variable. DVC passes the environment on to
the stages, and a stage appends one JSON object to the file per summary line. DVC tells a stage its name.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE, STAGE_VARIABLE = "LLBNAD_SUMMARY_FILE", "DVC_STAGE"
REFUSED = 2  # exit code of a stage that will fail again, such as one whose settings or images are impossible


def say(line: str, numbers: Mapping[str, float] | None = None) -> None:
    """Print `line`, after it and `numbers` (by the names that people see) went to the file of a listener."""
    if file := os.environ.get(VARIABLE):
        with Path(file).open("a", encoding="utf-8") as stream:
            stage = os.environ.get(STAGE_VARIABLE, "")
            stream.write(json.dumps({"stage": stage, "line": line, "numbers": dict(numbers or {})}) + "\n")
    print(line, flush=True)  # last, so that who reads it finds it in the file


@dataclass(frozen=True)
class Listener:
    """The file that the stages of one run write their summaries to."""

    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process that starts the stages."""
        return {VARIABLE: str(self.file)}

    def heard(self, stage: str) -> dict[str, str | float]:
        """Return a stage's lines as `summary`, and its numbers by name; empty if it did not run or wrote nothing."""
        said = [one for one in self._said() if one["stage"] == stage]
        if not said:
            return {}
        numbers = {name: value for one in said for name, value in one["numbers"].items()}
        return {"summary": "\n".join(one["line"] for one in said), **numbers}

    def will_tell(self, line: str) -> bool:
        """Return whether a line that was printed is a stage's first one, which stands at the end of `in_one_line`."""
        first = {one["stage"]: one["line"] for one in reversed(self._said())}
        return line in first.values()

    def _said(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
        # another stage may be writing its line at this moment
        return [json.loads(line) for line in lines if line.endswith("\n")]


def in_one_line(stage: str, outcome: str, summary: str) -> str:
    """Return what dvc did with a stage, and the first line that the stage said, without the stage's name before it."""
    first = summary.partition("\n")[0]
    told = first.partition(": ")[2] if first.startswith(stage.partition("@")[0]) else first
    return f"{stage}: {outcome}" + (f"; {told}" if told else "")


@contextmanager
def listening() -> Iterator[Listener]:
    """Yield a listener for the stages that are started inside the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Listener(Path(folder) / "said.jsonl")
