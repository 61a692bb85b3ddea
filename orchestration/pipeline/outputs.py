"""Read the tables that stages wrote, by name."""

import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from llbnad.data.manifest import read_manifest
from orchestration.pipeline.paths import stage_dir


def raw_manifest(dataset: str) -> Path:
    """Return the path of the table of a data set's images, relative to the repository's root."""
    return stage_dir("raw", dataset) / "manifest.parquet"


def noisy_manifest(scenario: str) -> Path:
    """Return the path of the table of a scenario's train and test images, relative to the repository's root."""
    return stage_dir("noisy", scenario) / "manifest.parquet"


def read_noisy(scenario: str, root: Path = Path()) -> pd.DataFrame:
    """Read the table of a scenario's train and test images."""
    return read_manifest(root / noisy_manifest(scenario))


def read_purified(scenario: str, part: Literal["kept", "rejected", "excluded"], root: Path = Path()) -> pd.DataFrame:
    """Read the training images that purification kept or rejected, or that people excluded."""
    return read_manifest(root / stage_dir("purified", scenario) / f"{part}.parquet")


def trusted_patches(scenario: str) -> Path:
    """Return the path of the grids (h, w) bool, by image, of the patches that count as normal."""
    return stage_dir("purified", scenario) / "trusted.safetensors"


def read_summary(scenario: str, root: Path = Path()) -> dict[str, Any]:
    """Read the counts of a scenario's purification: see `llbnad.purification.rounds.Selection.summary`."""
    content: dict[str, Any] = json.loads((root / stage_dir("purified", scenario) / "summary.json").read_text())
    return content
