"""The production lines that exist, and the number of their images that no training has seen."""

from pathlib import Path

import pyarrow.parquet as pq

from orchestration.line.arrivals import batches
from orchestration.line.inbox import lines, look
from orchestration.line.params_entry import conflict
from orchestration.pipeline import dvc
from orchestration.pipeline.outputs import noisy_manifest
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import ARRIVALS, FINAL_STAGE, INCOMING, stage_dir


def known_lines(root: Path, params: Params) -> list[str]:
    """Return the names of all lines that have or had an inbox, sorted."""
    reports = (root / stage_dir("raw", "")).glob(f"*/{ARRIVALS}")
    names = {line for line, reason in lines(root).items() if not reason} | {path.parent.name for path in reports}
    return sorted(name for name in names if not conflict(params, name))


def new_images(root: Path, line: str) -> int:
    """Count the images that no finished training has seen, including the files that wait in the inbox."""
    return len(set(batches(root, line)) - trained_on(root, line)) + len(look(root / INCOMING / line))


def trained_on(root: Path, line: str) -> set[str]:
    """Return the ids of the images of the last finished training; empty if a newer training is not finished."""
    manifest = noisy_manifest(line).as_posix()
    drawn, final = f"noisy@{line}", f"{FINAL_STAGE}@{line}"
    lock = dvc.read_entries(root, drawn, final)
    there = dvc.outputs(lock, drawn).get(manifest)
    used = {dep["path"]: dep.get("md5") for dep in lock["stages"].get(final, {}).get("deps", [])}
    if there is None or used.get(manifest) != there or not (root / manifest).exists():
        return set()
    return set(pq.read_table(root / manifest, columns=["image_id"])["image_id"].to_pylist())
