"""Where every stage's outputs lie, relative to the repository's root (dvc.yaml says the same in its `outs`)."""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
FEATURE_CACHE = DATA / "cache" / "features"
INCOMING = DATA / "incoming"  # one folder per production line: its inbox
QUARANTINE = DATA / "quarantine"
BENCHMARK_STAGES = "benchmarks/dvc.yaml"  # tables: beside the pipeline
STAGES = ("raw", "settings", "noisy", "features", "sub_model", "scores", "purified", "detector", "evaluation")
FINAL_STAGE = STAGES[-1]  # needs all the others


def drift_dir(line: str) -> Path:
    """Where the drift reports of a production line lie; not DVC's."""
    return DATA / "drift" / line


def review_file(line: str) -> Path:
    """File of people's verdicts on a line's images, which git versions."""
    return DATA / "review" / f"{line}.csv"


def stage_dir(stage: str, name: str) -> Path:
    """Folder of `stage` for a scenario (for `raw`: for a dataset)."""
    return DATA / stage / name


def sub_model_dir(scenario: str, subset: int) -> Path:
    """Folder of one sub-model."""
    return stage_dir("sub_model", scenario) / str(subset)
