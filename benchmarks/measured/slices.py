"""Slices: what one changed scenario costs among many, how 40 share two cores, and the union of hundreds."""

import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.measured.many_scenarios import FIRST, copy_first, prepare, run, scenario, write_params
from orchestration.pipeline import lock_blocks

PAIRS = 3
RUN = ("python", "-m", "orchestration", "run")


def make(folder: str, alone: str, scenarios: int) -> dict[str, Any]:
    """Make two repositories where nothing has changed: `folder` with many scenarios, and `alone` with one of them."""
    prepare(alone)
    shutil.copytree(alone, folder, symlinks=True, dirs_exist_ok=True)
    copy_first(Path(folder), scenarios)
    run(Path(folder), "dvc", "repro", "--single-item", "params")
    started = time.perf_counter()
    said = run(Path(folder), *RUN)
    if "Nothing to do" not in said:
        raise RuntimeError(f"something ran:\n{said[-2000:]}")
    first = time.perf_counter() - started
    started = time.perf_counter()
    run(Path(folder), *RUN)
    return {"first_seconds": first, "seconds": time.perf_counter() - started}


def one_changed(folder: str, alone: str) -> dict[str, Any]:
    """Measure `run` after an edit of one scenario, among many and alone, in turns."""
    found: dict[str, list[float]] = {folder: [], alone: []}
    for number in range(PAIRS):
        for one, seconds in found.items():
            _edit(Path(one), 1, 0.02 + 0.01 * number)
            seconds.append(_timed(Path(one), 3))
    ratios = sorted(many / own for many, own in zip(found[folder], found[alone], strict=True))
    return {"seconds": median(found[folder]), "alone_seconds": median(found[alone]), "ratios": ratios}


def many_changed(folder: str, changed: int) -> dict[str, Any]:
    """Measure `run` after an edit of several scenarios, on one process and on two."""
    found = {}
    for processes in (1, 2):
        _edit(Path(folder), changed, 0.1 + 0.01 * processes, processes)
        found[f"seconds_{processes}"] = _timed(Path(folder), 3 * changed)
    return found


def added(folder: str, scenarios: int) -> dict[str, Any]:
    """Add one scenario and count the stages that run."""
    root = Path(folder)
    content = yaml.safe_load((root / "params.yaml").read_text())
    name, own = scenario(scenarios), content["scenarios"][FIRST]
    content["scenarios"][name] = {**own, "seed": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    started = time.perf_counter()
    said = run(root, *RUN)
    ran = [line.split("]")[1].split("  (")[0].strip() for line in said.splitlines() if line.startswith("[")]
    if others := [stage for stage in ran if stage != "params" and name not in stage]:
        raise RuntimeError(f"{others} ran as well")
    return {"seconds": time.perf_counter() - started, "stages": len(ran)}


def collect(alone: str, folder: str, slices: int) -> dict[str, Any]:
    """Measure `slices collect` of that many finished slices, whose entries are copies of one."""
    root, origin = Path(folder) / "home", Path(folder) / "origin.git"
    shutil.copytree(alone, root, symlinks=True)
    write_params(root, slices)
    run(root, "git", "init", "--quiet", "--bare", str(origin))
    run(root, "git", "remote", "add", "origin", str(origin))
    for command in (("add", "--all"), ("commit", "--quiet", "-m", "code"), ("push", "--quiet", "origin", "HEAD")):
        run(root, "git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", *command)
    entries = lock_blocks.read_blocks(root)
    stream = ""
    for number in range(slices):
        name = scenario(number)
        own = {stage: block for stage, block in entries.items() if FIRST in stage or stage.startswith("raw")}
        text = lock_blocks.joined(own).replace(FIRST, name)
        message = f"{name}: evaluation"
        stream += (
            f"commit refs/llbnad/{name}\ncommitter bench <bench@localhost> 1700000000 +0000\n"
            f"data {len(message)}\n{message}\nM 100644 inline dvc.lock\ndata {len(text.encode())}\n{text}\n"
        )
    subprocess.run(["git", "fast-import", "--quiet"], cwd=origin, input=stream, text=True, check=True)
    started = time.perf_counter()
    said = run(root, "python", "-m", "orchestration", "slices", "collect")
    if not said.startswith(f"{slices} slices"):
        raise RuntimeError(said)
    return {"seconds": time.perf_counter() - started, "stages": len(lock_blocks.read_blocks(root))}


def _edit(root: Path, changed: int, rate: float, processes: int = 1) -> None:
    """Change the false-positive rate of the first scenarios, which runs settings, detector and evaluation."""
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["runtime"]["processes"] = processes
    for number in range(changed):
        own = content["scenarios"][scenario(number)]
        own["calibration"] = {**own["calibration"], "target_fpr": rate}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def _timed(root: Path, stages: int) -> float:
    """Return the seconds of a run in which so many stages run, beside stage `params`."""
    started = time.perf_counter()
    said = run(root, *RUN)
    if f"{stages + 1} stages ran" not in said:
        raise RuntimeError(f"not {stages + 1} stages ran:\n{said[-2000:]}")
    return time.perf_counter() - started
