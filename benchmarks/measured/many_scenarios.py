"""A repository with many scenarios in which nothing has changed: seconds until `dvc repro` and Dagster say so.

One small scenario is run. The other scenarios get copies of its outputs and of its entries in dvc.lock.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.measured.data import paths, solar_cells
from orchestration.pipeline import dvc, settings
from orchestration.pipeline.paths import DATA, STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = ("llbnad", "orchestration", ".dvc/config", ".dvcignore", ".gitignore", ".dagster/dagster.yaml", "dvc.yaml",
        "constraints.txt", "pyproject.toml", "data/review/none.csv", "params.yaml")  # fmt: skip
FIRST = "s000"
IMAGES = 60
PAIRS = 5


def copy_code(root: Path) -> None:
    """Copy what a repository needs for its pipeline: our code, the stages and the settings."""
    for name in CODE:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def prepare(folder: str) -> dict[str, Any]:
    """Make the repository in `folder` and run its first scenario."""
    root = Path(folder)
    copy_code(root)
    manifest, image_root = solar_cells()
    for label, name in (("good", "OK"), ("bad", "defect")):
        (root / "data" / "own" / "cells" / label).mkdir(parents=True)
        chosen = manifest[manifest["anomaly_class"] == name].head(IMAGES if label == "good" else IMAGES // 3)
        for file in paths(chosen.assign(split="all"), image_root, "all"):
            shutil.copy(file, root / "data" / "own" / "cells" / label)
    write_params(root, 1)
    run(root, "git", "init", "--quiet")
    started = time.perf_counter()
    run(root, "dvc", "repro", "--quiet")
    return {"seconds": time.perf_counter() - started}


def no_op_repro(folder: str, scenarios: int) -> dict[str, Any]:
    """Measure `dvc repro` of all scenarios, the better of two runs. The first also fills DVC's table of file hashes.

    The smallest stage alone is measured as well: unchanged, and run, whereupon DVC writes dvc.lock again.
    """
    root = Path(folder)
    copy_first(root, scenarios)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        said = run(root, "dvc", "repro")
        seconds.append(time.perf_counter() - started)
        if "Running stage" in said:
            raise RuntimeError(f"something ran:\n{said[-2000:]}")
    single = {}
    for name, arguments in {"single_stage_seconds": [], "single_stage_run_seconds": ["--force"]}.items():
        started = time.perf_counter()
        run(root, "dvc", "repro", "--single-item", *arguments, f"settings@{FIRST}")
        single[name] = time.perf_counter() - started
    return {"seconds": min(seconds), "stages": len(dvc.stage_graph(root)), **single}


def copy_first(root: Path, scenarios: int) -> None:
    """Make that many scenarios: the others are copies of the first one's outputs and of its entries in dvc.lock."""
    write_params(root, scenarios)
    for number in range(1, scenarios):
        for stage in STAGES:
            source, target = root / DATA / stage / FIRST, root / DATA / stage / scenario(number)
            if source.is_dir() and not target.exists():
                shutil.copytree(source, target)
    lock = yaml.load((root / "dvc.lock").read_text(), Loader=yaml.CSafeLoader)
    text = json.dumps({name: stage for name, stage in lock["stages"].items() if FIRST in name})
    for number in range(1, scenarios):
        lock["stages"] |= json.loads(text.replace(FIRST, scenario(number)))  # equal content has equal hashes
    (root / "dvc.lock").write_text(yaml.dump(lock, Dumper=yaml.CSafeDumper, sort_keys=False))
    run(root, "dvc", "repro", "--single-item", settings.SPLIT)


def no_op_dagster(folder: str, scenarios: int) -> dict[str, Any]:
    """Measure a Dagster run over the whole chain of one scenario, and `dvc repro` of that chain; the better of two."""
    root = Path(folder)
    commands = {
        "seconds": ("dagster", "asset", "materialize", "--select", "+key:evaluation", "--partition", FIRST,
                    "-m", "orchestration.definitions"),
        "dvc_seconds": ("dvc", "repro", f"evaluation@{FIRST}"),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(2):
        for name, command in commands.items():
            started = time.perf_counter()
            run(root, *command)
            found[name].append(time.perf_counter() - started)
    return {name: min(seconds) for name, seconds in found.items()} | {"n": scenarios}


def demo_repro() -> dict[str, Any]:
    """Measure `dvc repro` of this repository, if its outputs are there."""
    status = run(REPOSITORY, "dvc", "status")
    if "up to date" not in status:
        return {"seconds": None}
    started = time.perf_counter()
    run(REPOSITORY, "dvc", "repro")
    return {"seconds": time.perf_counter() - started}


def in_turns(folder: str, least: str, stages: int) -> dict[str, Any]:
    """Measure `dvc repro` of the repository in `folder`, and in turns that of as many minimal stages, in `least`.

    The second is the time that DVC itself takes. Neither is the first run, which fills DVC's table of file hashes.

    Returns:
        the medians of both, and the ratio of each of `PAIRS` pairs.
    """
    _prepare_least(Path(least), stages)
    found: dict[str, list[float]] = {folder: [], least: []}
    for _ in range(PAIRS):
        for one, seconds in found.items():
            started = time.perf_counter()
            said = run(Path(one), "dvc", "repro")
            seconds.append(time.perf_counter() - started)
            if "Running stage" in said:
                raise RuntimeError(f"something ran:\n{said[-2000:]}")
    ratios = sorted(ours / own for ours, own in zip(found[folder], found[least], strict=True))
    return {"seconds": median(found[folder]), "dvc_seconds": median(found[least]), "times_dvc": ratios}


def _prepare_least(root: Path, stages: int) -> None:
    names = [scenario(number) for number in range(stages)]
    (root / "in.txt").write_text("in\n")
    for name in names:
        (root / f"{name}.txt").write_text("out\n")
    stage = {"cmd": "touch ${item}.txt", "deps": ["in.txt"], "outs": ["${item}.txt"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"least": {"foreach": names, "do": stage}}}))
    run(root, "git", "init", "--quiet")
    run(root, "dvc", "init", "--quiet")
    run(root, "dvc", "commit", "--force", "--quiet")
    said = run(root, "dvc", "repro")
    if said.count("didn't change") != stages:
        raise RuntimeError(f"not {stages} stages without change:\n{said[-2000:]}")


def scenario(number: int) -> str:
    return f"s{number:03d}"


def write_params(root: Path, count: int) -> None:
    """Write params.yaml with `count` equal scenarios, each a reference to `defaults`, as people write them."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    params["datasets"] = {"cells": {"source": "image_folder", "root": "data/own/cells", "category": "cells"}}
    params["defaults"]["encoder"]["input_size"] = 64
    params["defaults"]["detector"]["memory_size"] = 64
    noise = {"protocol": "replace", "ratio": 0.1, "max_ratio": 0.2, "test_share": 0.3}
    own = {"dataset": "cells", "noise": noise, "suspects": 3}
    params["scenarios"] = {
        scenario(number): {"MERGE": "DEFAULTS", **json.loads(json.dumps(own))} for number in range(count)
    }
    text = yaml.dump(params, Dumper=yaml.SafeDumper, sort_keys=False)
    text = text.replace("\ndefaults:\n", "\ndefaults: &defaults\n").replace("MERGE: DEFAULTS", "<<: *defaults")
    (root / "params.yaml").write_text(text)


def run(root: Path, *command: str) -> str:
    environment = {**dvc.environment(), "DAGSTER_HOME": str(root / ".dagster"), "PYTHONPATH": str(root),
                   "DAGSTER_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
