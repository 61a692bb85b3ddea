"""Let a stage speak of its own run: to people on standard output, to whoever started it as data.

Numbers of a run, such as how many images were found in the cache, differ from run to run, so they are no output of a
stage. Whoever starts `dvc repro` may name a file in an environment variable; DVC hands the environment on to the stage,
and the stage adds a JSON object to the file for each thing it says.
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
    """Print `line`; tell it and `numbers` (by the names people see) to whoever listens."""
    print(line, flush=True)
    if file := os.environ.get(VARIABLE):
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"line": line, "numbers": dict(numbers or {})}) + "\n")


@dataclass(frozen=True)
class Listener:
    """Where one run's stage writes what it says."""

    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the process that starts the stage."""
        return {VARIABLE: str(self.file)}

    def heard(self) -> dict[str, str | float]:
        """Return all lines as `summary`, and the numbers by name; nothing if the stage said nothing or did not run."""
        if not self.file.exists():
            return {}
        said = [json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines()]
        numbers = {name: value for one in said for name, value in one["numbers"].items()}
        return {"summary": "\n".join(one["line"] for one in said), **numbers}


@contextmanager
def listening() -> Iterator[Listener]:
    """Listen to the stage that is started within the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Listener(Path(folder) / "said.jsonl")
