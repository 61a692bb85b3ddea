"""The numbers of a stage that MLflow shows, read from the stage's outputs.

The stage itself and `python -m orchestration record`, which may come much later, therefore record the same numbers.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from llbnad.config import METHOD
from llbnad.data.contaminate import sample_contamination
from llbnad.data.manifest import contamination, training_images
from llbnad.model.content import opened
from llbnad.model.scores import Scores
from llbnad.purification.aggregate import agreement
from llbnad.purification.partition import assign_subsets, subset_numbers, training_masks
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import stage_dir, sub_model_dir
from orchestration.tracking.metric_names import BURSTS

Numbers = dict[str, float | None]
THRESHOLD = ("value", "low", "high", "fpr_low", "fpr_high")  # what MLflow shows of a threshold


def stage_metrics(stage: str, scenario: str, params: Params, number: int | None = None) -> Numbers:
    """Return the numbers in a stage's outputs by their names in the stage; empty where its files hold none.

    Args:
        stage: raw … evaluation.
        scenario: name in params.yaml.
        params: the settings.
        number: which of the `sub_model` stages.
    """
    if stage == "sub_model" and number is not None:
        return _sub_model(scenario, params, number)
    read = READERS.get(stage)
    return read(scenario) if read else {}


def _noisy(scenario: str) -> Numbers:
    noisy = read_noisy(scenario)
    train = training_images(noisy)
    return {
        "n_train": len(train),
        "n_test": len(noisy) - len(train),
        "contamination_before": contamination(train),
        "contamination_before_samples": sample_contamination(train),
    }


def _sub_model(scenario: str, params: Params, number: int) -> Numbers:
    """Return how many sub-models the stage holds, and the means of what each learnt from and of its scores."""
    home, config = sub_model_dir(scenario, number), params.scenario(scenario)
    images = training_images(read_noisy(scenario))
    subsets = assign_subsets(images, config.subsets, config.seed)
    learnt = training_masks(subsets, len(subset_numbers(subsets)), config.partition).sum(axis=0)
    held = json.loads((home / "sub_models.json").read_text())["sub_models"]
    medians = [float(Scores.read(home / str(k) / "scores.parquet").series().median()) for k in held]
    found: Numbers = {"n_sub_models": len(held), "n_scored": len(images)}
    if held:
        found |= {"n_train": sum(int(learnt[k]) for k in held) / len(held), "score_median": sum(medians) / len(held)}
    return found


def _scores(scenario: str) -> Numbers:
    table = pd.read_parquet(stage_dir("scores", scenario) / "scores.parquet").set_index("image_id")
    return {} if (lowest := agreement(table)) is None else {"rank_correlation_min": lowest}


def _purified(scenario: str) -> Numbers:
    return _numbers_of(stage_dir("purified", scenario) / "summary.json")


def _detector(scenario: str) -> Numbers:
    folder = stage_dir("detector", scenario)
    sizes = pd.read_parquet(folder / "training_sets.parquet")["method"].value_counts()
    found: Numbers = {f"n_selected_{method}": int(size) for method, size in sizes.items()}
    with opened(folder / f"{METHOD}.safetensors") as (_, content):
        found |= dict(_threshold("threshold", content.get("threshold")))
        found |= dict(_threshold("pixel_threshold", content.get("pixel_threshold")))
    return found


def _threshold(kind: str, summary: dict[str, Any] | None) -> Iterator[tuple[str, float | None]]:
    """Yield the numbers of a threshold as a model file describes it; none if there is no threshold."""
    if summary is None:
        return
    yield from ((f"{kind}_{name}", summary.get(name)) for name in THRESHOLD)
    bursts = summary.get("bursts") or {}
    yield from ((f"bursts_{name}", bursts[name]) for name in BURSTS if name in bursts)
    if "min_area" in summary:
        yield "min_area", summary["min_area"]


def _evaluation(scenario: str) -> Numbers:
    folder = stage_dir("evaluation", scenario)
    found = _numbers_of(folder / "metrics.json")
    for row in pd.read_csv(folder / "comparison.csv").to_dict("records"):
        value = row.get("image_auroc")
        found[f"image_auroc_{row['method']}"] = None if pd.isna(value) else float(value)
    return found


def _numbers_of(file: Path) -> Numbers:
    content = json.loads(file.read_text())
    return {name: value for name, value in content.items() if isinstance(value, int | float)}


READERS: dict[str, Callable[[str], Numbers]] = {
    "noisy": _noisy,
    "scores": _scores,
    "purified": _purified,
    "detector": _detector,
    "evaluation": _evaluation,
}
