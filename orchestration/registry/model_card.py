"""The description of a version in the registry: which detector it is, where it decides, what it finds of defects."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llbnad.model.content import opened
from orchestration.pipeline.paths import stage_dir
from orchestration.registry.store import model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNMEASURED = "What it finds of synthetic defects was not measured (`sensitivity.images` of the scenario is 0)."


def read_metrics(scenario: str) -> dict[str, Any]:
    """Return what stage `evaluation` measured; empty if it has not run."""
    path = stage_dir("evaluation", scenario) / "metrics.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def model_card(model: Path, metrics: dict[str, Any]) -> str:
    """Return the description as Markdown, one fact per line.

    Args:
        model: the model file.
        metrics: metrics.json of the evaluation.
    """
    with opened(model) as (_, content):
        detector, encoder, threshold = content["detector"], content["encoder"], content.get("threshold")
    lines = [f"Detector {detector['name']} on {encoder['name']} at {encoder['input_size']} px."]
    if "n_selected" in metrics:
        lines.append(f"Learnt from {metrics['n_selected']} of {metrics['n_train']} training images.")
    if threshold is None:
        lines.append("It has no threshold.")
    else:
        rate = f"{threshold['target_fpr']:.2%} false positives"
        lines.append(f"Threshold {threshold['value']:.4f} for {rate}, from {threshold['n']} images.")
    found = str(metrics.get("sensitivity_line", ""))
    lines.append(f"{found[:1].upper()}{found[1:]}." if found else UNMEASURED)
    return "\n\n".join(lines)


def facts(model: Path, metrics: dict[str, Any]) -> dict[str, str]:
    """Return what `registry list` shows of a version, as tags: images, kept, threshold and image_auroc.

    Arguments are those of `model_card`. The AUROC is that on labelled test images; without any it is `no labels`.
    """
    with opened(model) as (_, content):
        threshold = content.get("threshold")
    auroc = metrics.get("image_auroc")
    return {
        "images": str(metrics.get("n_train", "")),
        "kept": str(metrics.get("n_selected", "")),
        "threshold": "none" if threshold is None else f"{threshold['value']:.4g}",
        "image_auroc": "no labels" if auroc is None else f"{auroc:.3f}",
    }


def describe(client: "MlflowClient", scenario: str, version: str, text: str) -> None:
    """Write the description of a version, unless it has it already."""
    name = model_name(scenario)
    if client.get_model_version(name, version).description != text:
        client.update_model_version(name, version, description=text)
