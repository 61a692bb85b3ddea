"""Workspaces: clones of the repository's code with small scenarios of their own on real solar cells.

`by_dvc` went through `dvc repro`, `by_dagster` had its one scenario materialised in Dagster, the sub-models side by
side. Both start from the same code, images and settings, so what they hold in common must have the same bytes. They are
made once in a test session and shared by the processes of pytest-xdist: a test looks at them, or changes a copy.

A copy is real, not of hard links: a new link changes an image's or a module's change time, by which a running stage in
another workspace would call it edited. It takes .3 s.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from llbnad.config import Promotion
from orchestration.pipeline import process
from orchestration.tracking.moved import follow_move
from tests import warm
from tests.conftest import REPOSITORY, shared
from tests.warm import COLD

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
    "subsets": 2,
    "partition": "disjoint",
    "aggregation": "oof_mean",
    "selection": {"policy": "mad", "k": 2.5},
    "rounds": 1,
    "patch_rejection": 0.5,
    "review": "data/review/none.csv",
    "calibration": {"target_fpr": 0.1, "folds": 3, "bound": "robust", "unsure": True, "min_area": 0.0, "burst": 1},
    "sensitivity": {"images": 0, "sizes": "auto", "contrasts": [0.2]},
    "comparators": ["none", "oracle", "random"],
    "suspects": 6,
}
NOISY = {
    **DEFAULTS,
    "subsets": 3,  # for two stages: the first holds two sub-models
    "dataset": "cells",
    "noise": {"protocol": "replace", "ratio": 0.2, "max_ratio": 0.3, "test_share": 0.3},
}
LINE = {**DEFAULTS, "dataset": "line", "noise": {"protocol": "as_is"}, "comparators": ["none"]}


@pytest.fixture(autouse=True)
def warm_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the programs that our code starts in the process of a test start warm as well."""
    monkeypatch.setattr(sys, "executable", str(Path(warm.programs()) / "python"))


@pytest.fixture
def cold_programs(warm_programs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts warm: for tests of what becomes of real processes."""
    monkeypatch.setattr(sys, "executable", COLD)


def make_workspace(folder: Path, images: Mapping[str, Path], scenarios: Mapping[str, Any], processes: int = 1) -> Path:
    """A git repository with our code, `images` below data/own/ and `scenarios` in params.yaml."""
    for name in CODE:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))  # what is compiled stays valid
        else:
            shutil.copy(source, target)
    for name, source in images.items():
        shutil.copytree(source, folder / "data" / "own" / name)
    params = {
        "datasets": {name: {"source": "image_folder", "root": f"data/own/{name}", "category": name} for name in images},
        "sub_models": [0, 1],
        "defaults": DEFAULTS,
        "scenarios": dict(scenarios),
        "arrival": {"stable_seconds": 0, "min_new_images": 20, "cron": "0 2 * * *"},
        "runtime": {
            "device": "cpu",
            "processes": processes,
            "threads": 0,
            "batch_size": 16,
            "memory_limit": 0,
            "feature_cache": None,
        },
        # synthetic defects take seconds: tests/pipeline/test_registry.py draws them once
        "promotion": Promotion(sensitivity_images=0).model_dump(),
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git(folder, "init", "--quiet")
    commit(folder, "workspace")
    return folder


def add_records(folder: Path) -> Path:
    """Put MLflow's empty database into a workspace, and return the workspace.

    To make it takes MLflow a second: that is done once in a test session, and by the tests of just that.
    """
    home = Path(os.environ[warm.FOLDER])
    made = home / "mlflow" / "mlflow.db"
    with FileLock(home / "records.lock"):
        if not made.exists():
            code = "from orchestration.tracking.database import prepare_database; prepare_database()"
            done = command(home, ["python", "-c", code], PYTHONPATH=str(REPOSITORY))
            assert done.returncode == 0, done.stderr
    (folder / "mlflow").mkdir(exist_ok=True)
    shutil.copy(made, folder / "mlflow")
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def environment(folder: Path, *, cold: bool = False, **extra: str) -> dict[str, str]:
    """Return the environment of a program in a workspace; programs start warm (`tests.warm`) unless told."""
    places = [*([] if cold else [warm.programs()]), str(Path(COLD).parent), os.environ["PATH"]]
    left_out = {"MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE"}  # compiled once, by the first process of a workspace
    inherited = {name: value for name, value in process.environment().items() if name not in left_out}
    return {**inherited, "PATH": os.pathsep.join(places), "DAGSTER_HOME": str(folder / ".dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **extra}  # fmt: skip


def command(
    folder: Path, arguments: Sequence[str], *, cold: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the installed environment in a workspace."""
    environ = environment(folder, cold=cold, **extra)
    return subprocess.run(arguments, cwd=folder, env=environ, capture_output=True, text=True)


def repro(folder: Path, *arguments: str, **extra: str) -> str:
    done = command(folder, ["dvc", "--wait-for-lock", "repro", *arguments], **extra)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def stage(folder: Path, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return command(folder, ["python", "-m", f"orchestration.stages.{name}", *arguments], **extra)


def materialise(folder: Path, select: str, partition: str, *, cold: bool = False) -> subprocess.CompletedProcess[str]:
    return command(
        folder,
        ["dagster", "asset", "materialize", "--select", select, "--partition", partition,
         "-m", "orchestration.definitions"],
        cold=cold,
    )  # fmt: skip


def unsorted_line(folder: Path, cells: Path) -> None:
    """Write an unsorted folder as a camera leaves it: 24 images, one of them twice, one broken, one empty."""
    folder.mkdir(parents=True)
    good, bad = (sorted((cells / kind).iterdir()) for kind in ("good", "bad"))
    for number, path in enumerate([*good[:20], *bad[:4]]):
        shutil.copy(path, folder / f"{number:04d}.png")
    shutil.copy(folder / "0000.png", folder / "again.png")
    (folder / "broken.png").write_bytes((folder / "0001.png").read_bytes()[:200])
    (folder / "empty.png").touch()


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Ask until a condition holds, and return whether it did within the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="session")
def line_images(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    return shared(tmp_path_factory, "line", lambda folder: unsorted_line(folder, cells))


@pytest.fixture(scope="session")
def by_dvc(tmp_path_factory: pytest.TempPathFactory, cells: Path, line_images: Path) -> Path:
    def build(folder: Path) -> None:
        make_workspace(folder, {"cells": cells, "line": line_images}, {"noisy20": NOISY, "line": LINE})
        repro(add_records(folder))

    return shared(tmp_path_factory, "by_dvc", build)


@pytest.fixture(scope="session")
def by_dagster(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    def build(folder: Path) -> None:
        make_workspace(folder, {"cells": cells}, {"noisy20": NOISY}, processes=2)
        part = materialise(add_records(folder), "+key:features", "noisy20")
        # predictions and exports are made on request
        wanted = "sub_model_0,sub_model_1,scores,purified,detector,evaluation,challenger,champion,drift"
        rest = materialise(folder, wanted, "noisy20")
        for done in (part, rest):
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    return shared(tmp_path_factory, "by_dagster", build)


def copied(workspace: Path, target: Path) -> Path:
    """Copy a workspace; MLflow's database knows its artifacts by absolute path, and follows."""
    # a quarter of the work of copytree
    subprocess.run(["cp", "-a", "--no-preserve=links", str(workspace), str(target)], check=True)
    follow_move(target / "mlflow" / "mlflow.db", patience=60)
    return target


@pytest.fixture
def copy_of(by_dvc: Path, tmp_path: Path) -> Path:
    """A copy of `by_dvc` to change and break."""
    return copied(by_dvc, tmp_path / "copy")


@pytest.fixture
def dagster_copy(by_dagster: Path, tmp_path: Path) -> Path:
    """A copy of `by_dagster` to change and break."""
    return copied(by_dagster, tmp_path / "copy")
