"""The paths of all stages' outputs, relative to the repository's root. They equal the `outs` in dvc.yaml."""

from pathlib import Path

PARAMS = Path("params.yaml")
DATA = Path("data")
FEATURE_CACHE = DATA / "cache" / "features"
INCOMING = DATA / "incoming"  # holds one inbox per production line
ARRIVALS = "arrivals.jsonl"  # report of a production line, beside its images: what arrived, in which batch
INSPECT = DATA / "inspect"  # holds one folder of images to score per production line
QUARANTINE = DATA / "quarantine"
BENCHMARK_STAGES = "benchmarks/dvc.yaml"  # stages of the benchmark tables, which are no part of the pipeline
STAGES = ("raw", "settings", "noisy", "features", "sub_model", "scores", "purified", "detector", "evaluation")
FINAL_STAGE = STAGES[-1]  # needs all other stages


def drift_dir(line: str) -> Path:
    """Return the folder of a production line's drift reports. DVC does not version it."""
    return DATA / "drift" / line


def inspected_dir(line: str) -> Path:
    """Return the folder of the results of a line's scored images. DVC does not version it."""
    return DATA / "inspected" / line


def review_file(line: str) -> Path:
    """Return the file of people's verdicts on a line's images. Git versions it."""
    return DATA / "review" / f"{line}.csv"


def stage_dir(stage: str, name: str) -> Path:
    """Return the output folder of `stage` for a scenario, or for a dataset if the stage is `raw`."""
    return DATA / stage / name


def sub_model_dir(scenario: str, stage: int) -> Path:
    """Return the output folder of one of a scenario's `sub_model` stages, which may hold several sub-models."""
    return stage_dir("sub_model", scenario) / str(stage)


def sub_models_of(stage: int, num_stages: int, num_sub_models: int) -> range:
    """Return the numbers of the sub-models that a stage holds: every S-th of T."""
    return range(stage, num_sub_models, num_stages)
