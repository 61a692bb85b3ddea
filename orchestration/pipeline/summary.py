"""A stage's summary of its own run: as text for people, and as data for the program that started it.

Numbers of a run, such as the number of images found in the cache, differ from run to run, so they are no output of a
stage. The program that starts `dvc repro` may name a file in an environment variable. DVC passes the environment on to
the stage, and the stage appends one JSON object to the file per summary line.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LLBNAD_SUMMARY_FILE"


def say(line: str, numbers: Mapping[str, float] | None = None) -> None:
    """Print `line`. Append it and `numbers` (by the names that people see) to the listener's file, if there is one."""
    print(line, flush=True)
    if file := os.environ.get(VARIABLE):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"line": line, "numbers": dict(numbers or {})}) + "\n")


@dataclass(frozen=True)
class Listener:
    """The file that the stage of one run writes its summary to."""

    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process that starts the stage."""
        return {VARIABLE: str(self.file)}

    def heard(self) -> dict[str, str | float]:
        """Return all lines as `summary`, and the numbers by name; empty if the stage wrote nothing or did not run."""
        if not self.file.exists():
            return {}
        said = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        numbers = {name: value for one in said for name, value in one["numbers"].items()}
        return {"summary": "\n".join(one["line"] for one in said), **numbers}


@contextmanager
def listening() -> Iterator[Listener]:
    """Yield a listener for the stage that is started inside the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Listener(Path(folder) / "said.jsonl")
