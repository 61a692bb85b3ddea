"""Workspaces: clones of the repository's code with small scenarios of their own on real solar cells.

`by_dvc` went through `dvc repro`, `by_dagster` had its one scenario materialised in Dagster, two assets at a time. Both
start from the same code, images and settings, so what they hold in common must have the same bytes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from llbnad.config import Promotion
from orchestration.pipeline import dvc
from tests.conftest import REPOSITORY

CODE = ("llbnad", "orchestration", ".dvc/config", ".dvcignore", ".gitignore", ".dagster/dagster.yaml", "dvc.yaml",
        "constraints.txt", "pyproject.toml", "data/review/none.csv")  # fmt: skip
ENCODER = {"name": "efficientnet_lite2", "input_size": 64, "layers": [2, 3]}
DEFAULTS = {
    "seed": 0,
    "encoder": ENCODER,
    "detector": {
        "name": "patchcore",
        "memory": "random",
        "memory_size": 1024,
        "oversampling": 2,
        "neighbours": 1,
        "vectors": "unit",
    },
    "sub_model_detector": None,
    "partition": "disjoint",
    "aggregation": "oof_mean",
    "selection": {"policy": "mad", "k": 2.5},
    "rounds": 1,
    "patch_rejection": 0.5,
    "review": "data/review/none.csv",
    "calibration": {"target_fpr": 0.1, "folds": 3},
    "comparators": ["none", "oracle", "random"],
    "suspects": 6,
}
NOISY = {
    **DEFAULTS,
    "dataset": "cells",
    "noise": {"protocol": "replace", "ratio": 0.2, "max_ratio": 0.3, "test_share": 0.3},
}
LINE = {**DEFAULTS, "dataset": "line", "noise": {"protocol": "as_is"}, "comparators": ["none"]}


def make_workspace(folder: Path, images: Mapping[str, Path], scenarios: Mapping[str, Any], processes: int = 1) -> Path:
    """A git repository with our code, `images` below data/own/ and `scenarios` in params.yaml."""
    for name in CODE:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name, source in images.items():
        shutil.copytree(source, folder / "data" / "own" / name)
    params = {
        "datasets": {name: {"source": "image_folder", "root": f"data/own/{name}", "category": name} for name in images},
        "subsets": [0, 1],
        "defaults": DEFAULTS,
        "scenarios": dict(scenarios),
        "arrival": {"stable_seconds": 0, "min_new_images": 20, "cron": "0 2 * * *"},
        "runtime": {"device": "cpu", "processes": processes, "threads": 0, "batch_size": 16, "memory_limit": 0},
        "promotion": Promotion().model_dump(),
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git(folder, "init", "--quiet")
    commit(folder, "workspace")
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def environment(folder: Path, **extra: str) -> dict[str, str]:
    inherited = {name: value for name, value in dvc.environment().items() if name != "MLFLOW_TRACKING_URI"}
    return {**inherited, "DAGSTER_HOME": str(folder / ".dagster"), "DAGSTER_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true", **extra}  # fmt: skip


def command(folder: Path, arguments: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the installed environment in a workspace."""
    return subprocess.run(arguments, cwd=folder, env=environment(folder, **extra), capture_output=True, text=True)


def repro(folder: Path, *arguments: str, **extra: str) -> str:
    done = command(folder, ["dvc", "--wait-for-lock", "repro", *arguments], **extra)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def stage(folder: Path, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return command(folder, [sys.executable, "-m", f"orchestration.stages.{name}", *arguments], **extra)


def materialise(folder: Path, select: str, partition: str) -> subprocess.CompletedProcess[str]:
    return command(
        folder,
        ["dagster", "asset", "materialize", "--select", select, "--partition", partition,
         "-m", "orchestration.definitions"],
    )  # fmt: skip


@pytest.fixture(scope="session")
def line_images(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    """An unsorted folder as a camera leaves it: 24 images, one of them twice, one broken, one empty."""
    folder = tmp_path_factory.mktemp("line")
    for number, path in enumerate([*sorted((cells / "good").iterdir())[:20], *sorted((cells / "bad").iterdir())[:4]]):
        shutil.copy(path, folder / f"{number:04d}.png")
    shutil.copy(folder / "0000.png", folder / "again.png")
    (folder / "broken.png").write_bytes((folder / "0001.png").read_bytes()[:200])
    (folder / "empty.png").touch()
    return folder


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory: pytest.TempPathFactory, cells: Path, line_images: Path) -> Path:
    folder = make_workspace(
        tmp_path_factory.mktemp("by_dvc"), {"cells": cells, "line": line_images}, {"noisy20": NOISY, "line": LINE}
    )
    repro(folder)
    return folder


@pytest.fixture(scope="session")
def by_dagster(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("by_dagster"), {"cells": cells}, {"noisy20": NOISY}, processes=2)
    done = materialise(folder, "+key:champion or key:drift", "noisy20")  # all but what is done on request
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "multiprocess executor" in done.stdout + done.stderr
    return folder


@pytest.fixture
def copy_of(by_dvc: Path, tmp_path: Path) -> Path:
    """A copy of `by_dvc` to change and break."""
    assert os.sep in str(tmp_path)
    return Path(shutil.copytree(by_dvc, tmp_path / "copy", symlinks=True))
