"""The description of a run in Markdown: what was kept, what it is worth beside the comparators, where it decides.

It says what the outputs on disk say, and only of those that the run has recorded. Without labels the table has counts
alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd

from llbnad.config import METHOD
from llbnad.utils.files import file_digest
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FINAL_STAGE, PARAMS, stage_dir
from orchestration.tracking.beside_earlier import BESIDE, beside_line
from orchestration.tracking.beside_earlier import PICTURE as BESIDE_PICTURE

TRAINED_ON = {
    METHOD: "what {policy} kept (*llbnad*)",
    "none": "everything (*none*)",
    "oracle": "true normals only (*oracle*)",
    "random": "as many, drawn blindly (*random*)",
}
ORDER = ("none", METHOD, "oracle", "random")
COLUMNS = {  # of comparison.csv, shown where they are known
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "pixel_auroc": "P-AUROC",
    "aupro": "AUPRO",
}
PICTURES = (  # stage, file, and what it is
    ("purified", "plots/scores.png", "Scores of the training images, and the cut"),
    ("purified", "plots/suspects.png", "The most suspicious training images"),
    ("evaluation", "plots/curves.png", "Curves on the test images"),
    ("evaluation", "plots/scores.png", "Scores of the final detector"),
    ("evaluation", "plots/cases.png", "Images that the final detector scored"),
    ("evaluation", "plots/sensitivity.png", "Synthetic defects that are found"),
)
UNLABELLED = "No labels, so the table has counts alone."


def run_note(scenario: str, params: Params, tags: Mapping[str, str], experiment_id: str, run_id: str) -> str:
    """Return the description of a scenario's run.

    Args:
        scenario: name in params.yaml.
        params: the settings.
        tags: tags of the run; `md5.<stage>` say which outputs are its own.
        experiment_id: id of its experiment, whose charts compare its runs.
        run_id: id of the run, whose pictures are shown.
    """
    own = params.scenario(scenario)
    policy = own.selection.policy
    parts = []
    purified = stage_dir("purified", scenario)
    if recorded(tags, "purified", purified, "summary.json"):
        parts.append(_kept(json.loads((purified / "summary.json").read_text())))
    if recorded(tags, "purified", purified, "suspects.csv"):
        address = urlencode({"path": "purified/suspects.csv", "run_uuid": run_id})
        parts.append(f"Suspects: [suspects.csv](get-artifact?{address}), and a picture below (Artifacts → purified).")
    evaluation = stage_dir("evaluation", scenario)
    if recorded(tags, "evaluation", evaluation, "comparison.csv"):
        if beside := beside_line(tags, experiment_id):
            parts.append(beside)
        parts += _results(evaluation, policy)
    about = f"{own.detector.name} on {own.encoder.name} at {own.encoder.input_size} px"
    parts.append(f"Data set `{own.dataset}`, policy `{policy}`, detector {about}. {_again(scenario, tags)}")
    parts.append(
        f"Compare it with other runs: [charts of their metrics]({charts(experiment_id)}). MLflow's page *Compare* "
        "begins with a plot of parameters; the metrics are in the table below it."
    )
    parts += _pictures(scenario, tags, run_id)
    return "\n\n".join(parts)


def charts(experiment_id: str) -> str:
    """Return the address of the charts of an experiment's runs, relative to MLflow's pages."""
    place = {"compareRunsMode": "CHART", "workflowType": "machine_learning"}
    return f"#/experiments/{experiment_id}/runs?{urlencode(place)}"


def command(scenario: str) -> str:
    """Return the command that makes a scenario's outputs again."""
    return f"dvc repro {FINAL_STAGE}@{scenario}"


def _again(scenario: str, tags: Mapping[str, str]) -> str:
    """Return how the run's outputs are made again, with its code and settings."""
    commit = tags.get("git.commit", "")
    if not commit:
        return f"Make it again: `{command(scenario)}`."
    if commit.endswith("-dirty"):
        edited = tags.get("git.edited", "something")
        held = "its settings are" if edited == str(PARAMS) else "code is not recorded, settings are"
        return (
            f"Edited after commit `{commit[:10]}`: {edited}; {held} among the run's parameters. While nothing else is "
            f"edited, `{command(scenario)}` makes it again."
        )
    return f"Make it again: `git checkout {commit[:10]}`, then `{command(scenario)}`."


def recorded(tags: Mapping[str, str], stage: str, folder: Path, name: str) -> bool:
    """Return whether a file on disk is the one that a run with these tags has recorded."""
    known = json.loads(tags.get(f"md5.{stage}", "{}")).get(name)
    return known is not None and (folder / name).exists() and file_digest(folder / name, "md5") == known


def comparison_table(rows: Sequence[Mapping[Any, Any]], policy: str) -> str:
    """Return the rows of comparison.csv as a table in Markdown. Columns without any number are left out."""
    shown = [name for name in COLUMNS if any(not pd.isna(row.get(name)) for row in rows)]
    shares = any(not pd.isna(row.get("contamination_after")) for row in rows)
    heads = ["trained on", "images", *(["defects among them"] if shares else []), *(COLUMNS[name] for name in shown)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in sorted(rows, key=lambda one: ORDER.index(one["method"]) if one["method"] in ORDER else len(ORDER)):
        share = [_percent(row.get("contamination_after"))] if shares else []
        numbers = ["–" if pd.isna(row.get(name)) else f"{row[name]:.3f}" for name in shown]
        trained_on = TRAINED_ON.get(row["method"], row["method"]).format(policy=policy)
        lines.append([trained_on, str(int(row["n_selected"])), *share, *numbers])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kept(summary: Mapping[str, Any]) -> str:
    text = f"Kept {summary['n_selected']} of {summary['n_train']} training images ({_percent(summary['kept_share'])})"
    before, after = summary.get("contamination_before"), summary.get("contamination_after")
    if before is not None and after is not None:
        text += f"; {_percent(before)} of all had a defect, {_percent(after)} of the kept ones"
    return text + "."


def _results(folder: Path, policy: str) -> list[str]:
    rows = pd.read_csv(folder / "comparison.csv").to_dict("records")
    metrics = json.loads((folder / "metrics.json").read_text()) if (folder / "metrics.json").exists() else {}
    parts = [comparison_table(rows, policy)]
    if not metrics.get("n_tested"):
        parts.append(UNLABELLED if not metrics.get("n_labelled") else "No labelled image is set aside for testing.")
    if metrics.get("threshold") is not None:
        rates = [
            f"{name} {_percent(metrics[key])}"
            for key, name in (("fpr_at_threshold", "false positives"), ("recall_at_threshold", "recall"))
            if metrics.get(key) is not None
        ]
        measured = f"; on test images {', '.join(rates)}" if rates else ""
        parts.append(f"Threshold {metrics['threshold']:.4g}{measured}.")
    said = [*metrics.get("notes", ()), *([line] if (line := metrics.get("sensitivity_line")) else [])]
    return [*parts, *(["\n".join(f"* {line}" for line in said)] if said else [])]


def _pictures(scenario: str, tags: Mapping[str, str], run_id: str) -> list[str]:
    found = []
    if BESIDE in tags and json.loads(tags[BESIDE])["picture"]:
        address = urlencode({"path": f"{FINAL_STAGE}/{BESIDE_PICTURE}", "run_uuid": run_id})
        found.append(f"![This run beside the one before it, none and oracle](get-artifact?{address})")
    for stage, name, title in PICTURES:
        if name in json.loads(tags.get(f"md5.{stage}", "{}")):
            address = urlencode({"path": f"{stage}/{name}", "run_uuid": run_id})
            found.append(f"![{title}](get-artifact?{address})")
    return found


def _percent(share: float | None) -> str:
    return "–" if share is None or pd.isna(share) else f"{100 * share:.1f} %"
