"""The names of metrics in MLflow: one name per number, and `train_` before what was measured on images to train on.

Stages and their files keep their own names, which DVC and Dagster show. They repeat a number where it helps a reader of
one file; a table of runs with such a number in two columns misleads. What is left out here is in the files.
"""

from collections.abc import Mapping

from llbnad.config import METHOD

SAMPLES = "contamination_before_samples"
VERDICTS = "n_verdict_"  # begins the counts of people's verdicts, by kind
OVERRULED = "n_overruled"
SHARES = {f"contamination_{part}": f"train_contamination_{part}" for part in ("before", "after", "rejected")}
BURSTS = ("tested", "alone", "together")  # counts of calibration images (`llbnad.model.bursts`)
NAMES: dict[str, dict[str, str | None]] = {  # by stage; None: the number has another name already
    "noisy": {
        "n_train": None,  # with images that people exclude; `n_train` is the number that the sub-models share
        "contamination_before": None,
        SAMPLES: "train_contamination_before_samples",
    },
    "sub_model": {"n_train": "n_train_mean", "score_median": "train_score_median"},
    "scores": {"rank_correlation_min": "train_rank_correlation_min"},
    "purified": {**SHARES},
    "detector": {
        "threshold_value": "threshold",
        "pixel_threshold_value": "pixel_threshold",
        f"n_selected_{METHOD}": "n_selected",
        **{f"bursts_{name}": f"train_bursts_{name}" for name in BURSTS},
        "n_selected_none": None,  # n_train
        "n_selected_random": None,  # n_selected
    },
    "evaluation": {**SHARES, f"image_auroc_{METHOD}": None},  # image_auroc
}


def in_mlflow(stage: str, metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a stage's metrics by their names in MLflow."""
    names = NAMES.get(stage, {})
    metrics = dict(metrics)
    # one view per sample: the share of samples is that of images
    if metrics.get(SAMPLES) == metrics.get("contamination_before"):
        metrics.pop(SAMPLES, None)
    if not any(value for name, value in metrics.items() if name.startswith(VERDICTS)):
        metrics = {name: value for name, value in metrics.items() if not name.startswith((VERDICTS, OVERRULED))}
    found = {names.get(name, name): value for name, value in metrics.items()}
    # the labelled images among the evaluated ones: test images, or images to train on if none is set aside
    labelled = found.pop("n_labelled", None)
    if labelled is not None and labelled != found.get("n_tested"):
        found["train_n_labelled"] = labelled
    return {name: value for name, value in found.items() if name is not None}
