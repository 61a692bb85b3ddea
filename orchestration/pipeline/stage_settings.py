"""The settings that each stage reads: a stage depends on a file with these, so that editing another reruns nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import STAGE, settings_path

# a scenario without a region has no such key
READ_BY = {  # `review` is missing, since stages depend on the file that it names
    "noisy": ("dataset", "noise", "seed"),
    "features": ("encoder",),
    "sub_model": ("sub_models", "subsets", "seed", "encoder", "region", "detector", "sub_model_detector",
                  "partition"),
    "scores": ("sub_models", "subsets", "seed", "partition", "aggregation"),
    # further rounds train sub-models again
    "purified": ("seed", "encoder", "region", "detector", "sub_model_detector", "partition", "aggregation",
                 "selection", "rounds", "patch_rejection", "suspects"),
    "detector": ("seed", "encoder", "region", "detector", "calibration", "comparators"),
    "evaluation": ("seed", "encoder", "region", "suspects", "sensitivity"),
}  # fmt: skip


def files(scenario: str, content: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Return what stage `settings` writes, by path relative to the repository's root.

    Args:
        scenario: name of the scenario.
        content: its entry with the versions of its own classes (`orchestration.pipeline.settings`).
    """
    folder = stage_dir(STAGE, scenario) / "read_by"
    parts = {folder / f"{reader}.json": _read(keys, content) for reader, keys in READ_BY.items()}
    return {settings_path(scenario): dict(content), **parts}


def _read(keys: tuple[str, ...], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `keys`. Where sub-models have a detector of their own, stage 1 reads no other."""
    own = "sub_model_detector" in keys and content["sub_model_detector"] is not None
    return {key: content[key] for key in keys if key in content and not (own and key == "detector")}
