"""The kinds of commands that are killed, each on a tiny workspace: 40 images, two sub-models, a memory of 256."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import REPOSITORY, copy_cells
from tests.pipeline.conftest import COLD, DEFAULTS, commit, make_workspace, unsorted_line
from tests.pipeline.test_benchmark import TINY as TINY_GRID

TINY = {
    **DEFAULTS,
    "detector": {**DEFAULTS["detector"], "memory_size": 256},
    "comparators": ["none"],
    "dataset": "cells",
    "noise": {"protocol": "replace", "ratio": 0.2, "max_ratio": 0.2, "test_share": 0.3},
}
GRID = "benchmarks/tiny.yaml"


@dataclass(frozen=True)
class Kind:
    """One command, and what its workspace needs beside the tiny pipeline."""

    command: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    alone: float = 1 / 3  # share of its kills that spare what it has started


def build(kind: Kind, folder: Path) -> None:
    """Make the workspace that each chain of a kind begins with; nothing has run there."""
    with tempfile.TemporaryDirectory() as name:
        cells = Path(name) / "cells"
        copy_cells(cells, 32, 8)
        make_workspace(folder, {"cells": cells}, {"tiny": TINY})
    kind.prepare(folder)


def _inbox(folder: Path) -> None:
    for line in ("bottle", "cap"):
        unsorted_line(folder / "data" / "incoming" / line, folder / "data" / "own" / "cells")
    shutil.copy(folder / "data/incoming/bottle/0003.png", folder / "data/incoming/cap/doubled.png")


def _grid(folder: Path) -> None:
    grid = yaml.safe_load((REPOSITORY / "benchmarks" / "purification.yaml").read_text())
    source = {"source": "image_folder", "root": "data/own/cells", "category": "cells"}
    kept = {name: grid["policies"][name] for name in ("default", "mad", "paper")}
    grid |= TINY_GRID | {"datasets": {"cells": source}, "ratios": [0.0, 0.2], "seeds": [0, 1], "policies": kept}
    grid |= {"candidates": ["default", "mad"], "noise": {**grid["noise"], "max_ratio": 0.2}}
    (folder / GRID).parent.mkdir()
    (folder / GRID).write_text(yaml.safe_dump(grid))
    commit(folder, "a grid")


KINDS = {
    "repro": Kind((str(Path(COLD).with_name("dvc")), "repro"), alone=0),  # does not wait for another one, and says so
    "run": Kind(("python", "-m", "orchestration", "run")),
    "ingest": Kind(("python", "-m", "orchestration", "ingest"), _inbox),
    "table": Kind(("python", "-m", "orchestration", "benchmark", GRID, "--processes", "2"), _grid),
    "dagster": Kind(
        ("dagster", "asset", "materialize", "--select", "+key:evaluation", "--partition", "tiny",
         "-m", "orchestration.definitions")
    ),
}  # fmt: skip
