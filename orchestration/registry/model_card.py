"""The description of a version in the registry: which detector it is, where it decides, what it finds of defects."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from llbnad.model.bursts import Bursts
from llbnad.model.content import opened
from llbnad.monitoring import sensitivity_check
from llbnad.monitoring.finding import Finding
from orchestration.pipeline.paths import stage_dir
from orchestration.registry.comparison_files import CARD, SUSPECTS, comparison_files
from orchestration.registry.shown import PROGRAM, REVIEW, remedies
from orchestration.registry.store import model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNMEASURED = "What it finds of synthetic defects was not measured (`sensitivity.images` of the scenario is 0)."
COMPARED_ALONE = (
    "Which synthetic defects it finds was measured beside the champion alone, by the check `sensitivity` below; the "
    "evaluation measured none (`sensitivity.images` of the scenario is 0)."
)
UNLABELLED = "How many of them have a defect is not known: not all have a label."
WORDS = {"passed": "passed", "failed": "**REFUSED**", "skipped": "skipped"}  # outcomes of a check
LONGEST, LONGEST_FINDING = 5000, 450  # characters; the registry refuses longer descriptions
PICTURES = {  # of a version's card, by name, those first that a description shows: stage and file
    SUSPECTS: ("purified", "plots/suspects.png"),
    "sensitivity.png": ("evaluation", "plots/sensitivity.png"),
    "curves.png": ("evaluation", "plots/curves.png"),
    "scores_of_detector.png": ("evaluation", "plots/scores.png"),
    "scores_of_training_images.png": ("purified", "plots/scores.png"),
    "cases.png": ("evaluation", "plots/cases.png"),
    "synthetic_defects.png": ("evaluation", "plots/synthetic_defects.png"),
}
SHOWN_PICTURES = 3  # in the description
REFUSED_BY, ALTHOUGH = "REFUSED by", "Promoted by hand, although refused by"  # begin a description
WOULD_BE = "In use; if it came now, it would be refused by"  # begins one too
NEXT = "Next: "  # begins a paragraph on what to do about a refusal
OWN_TEXT = "card.sha256"  # tag of a version: hash of the description that was written here


def read_metrics(scenario: str) -> dict[str, Any]:
    """Return what stage `evaluation` measured; empty if it has not run."""
    path = stage_dir("evaluation", scenario) / "metrics.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def model_card(
    model: Path,
    metrics: dict[str, Any],
    findings: Sequence[Finding] = (),
    advice: str | None = None,
    in_use: bool = False,
) -> str:
    """Return the description as Markdown: why it was refused, if so; a fact per paragraph; the checks, one per line.

    Args:
        model: the model file.
        metrics: metrics.json of the evaluation.
        findings: outcomes of the checks.
        advice: what to know before one trusts the version.
        in_use: the version is champion, so that nothing was refused.
    """
    with opened(model) as (_, content):
        detector, encoder, threshold = content["detector"], content["encoder"], content.get("threshold")
    begins = WOULD_BE if in_use else REFUSED_BY
    lines = [f"{begins} {one.name}: {_seen(one)}; expected {one.expected}." for one in findings if one.failed]
    if lines and not in_use:
        advised = remedies([one.name for one in findings if one.failed]) or REVIEW
        by_hand = f"`{PROGRAM} registry promote LINE VERSION` promotes it all the same"
        button = "the button *Promote model* of this page changes no alias, so nothing in use"
        lines.append(f"{NEXT}{advised}. {by_hand}; {button}.")
    lines.append(f"Detector {detector['name']} on {encoder['name']} at {encoder['input_size']} px.")
    if "n_selected" in metrics:
        share = metrics["n_selected"] / metrics["n_train"]
        lines.append(f"Learnt from {metrics['n_selected']} of {metrics['n_train']} training images ({share:.1%}).")
        lines.append(_contamination(metrics))
    if threshold is None:
        lines.append("It has no threshold.")
    else:
        lines.append(_threshold_line(threshold, metrics))
        if (bursts := Bursts.restore(threshold.get("bursts"))) is not None:
            lines.append(bursts_line(bursts))
    if metrics.get("image_auroc") is not None:
        lines.append(f"I-AUROC {metrics['image_auroc']:.3f} on {metrics['n_tested']} labelled test images.")
    found = str(metrics.get("sensitivity_line", ""))
    compared = any(one.name == sensitivity_check.NAME and one.outcome != "skipped" for one in findings)
    unmeasured = COMPARED_ALONE if compared else UNMEASURED
    lines.append(f"{found[:1].upper()}{found[1:]}." if found else unmeasured)
    if advice:
        lines.append(f"**{advice[:1].upper()}{advice[1:]}.**")
    if findings:
        lines.append("Checks:\n\n" + "\n".join(f"* {finding_line(one)}" for one in findings))
    return "\n\n".join(lines)


def facts(model: Path, metrics: dict[str, Any]) -> dict[str, str]:
    """Return what `registry list` shows of a version, as tags: images, kept, threshold and image_auroc,
    and the rate of false positives that the threshold promises.

    Arguments are those of `model_card`. The AUROC is that on labelled test images; without any it is `no labels`.
    """
    with opened(model) as (_, content):
        threshold = content.get("threshold")
    auroc = metrics.get("image_auroc")
    return {
        "images": str(metrics.get("n_train", "")),
        "kept": str(metrics.get("n_selected", "")),
        "threshold": "none" if threshold is None else f"{threshold['value']:.4g}",
        "false_positives": "no threshold" if threshold is None else _expected(threshold),
        "image_auroc": "no labels" if auroc is None else f"{auroc:.3f}",
    }


def _expected(threshold: dict[str, Any]) -> str:
    """Return the rate of false positives that a threshold promises, beside the rate that was asked for."""
    wanted = threshold["target_fpr"]
    promised = threshold.get("promised_fpr", wanted)  # files of release 0.1 lack it
    return f"expect {promised:.2%}" + (f", where {wanted:.2%} were asked for" if promised > wanted else "")


def pictures(scenario: str) -> dict[str, Path]:
    """Return the pictures of a version that are on disk, by their name in the card's folder.

    Those of the latest challenge show it beside the champion.
    """
    files = {name: stage_dir(stage, scenario) / file for name, (stage, file) in PICTURES.items()}
    beside = {path.name: path for path in comparison_files(scenario) if path.suffix == ".png"}
    return {name: path for name, path in {**files, **beside}.items() if path.exists()}


def write_card(folder: Path, text: str, scenario: str) -> list[str]:
    """Write the card as README.md and the pictures beside it. Return the names of the pictures."""
    found = pictures(scenario)
    folder.mkdir(parents=True)
    for name, path in found.items():
        shutil.copy(path, folder / name)
    shown = "".join(f"\n\n![{name}]({name})" for name in found)
    (folder / "README.md").write_text(f"# {model_name(scenario)}\n\n{text}{shown}\n", encoding="utf-8")
    return [*found]


def describe(client: "MlflowClient", scenario: str, version: str, text: str) -> None:
    """Write the description of a version, and that of the line's model if it has none.

    The first pictures of the version's card, if it has one, are shown below the text. A description that a person has
    changed is left alone.
    """
    name = model_name(scenario)
    known = client.get_model_version(name, version)
    addresses = [
        urlencode({"name": name, "version": version, "path": f"{CARD}/{picture}"})
        for picture in known.tags.get(CARD, "").split()[:SHOWN_PICTURES]
    ]
    shown = "".join(f"\n\n![](model-versions/get-artifact?{address})" for address in addresses)
    room = LONGEST - len(shown)
    text = (text if len(text) <= room else f"{text[: room - 1]}…") + shown
    before = known.description or ""
    if before != text and known.tags.get(OWN_TEXT, _digest(before)) == _digest(before):
        client.update_model_version(name, version, description=text)
        client.set_model_version_tag(name, version, OWN_TEXT, _digest(text))
    if not client.get_registered_model(name).description:
        about = (
            f"The detectors of `{scenario}`. The alias `champion` is the one in use: `models:/{name}@champion`. "
            f"`python -m orchestration registry promote {scenario} VERSION` moves it; the button Promote here copies a "
            "version to another model, and changes nothing that is in use."
        )
        client.update_registered_model(name, about)


def say_promoted(client: "MlflowClient", scenario: str, version: str) -> None:
    """Say in the description of a refused version that it was promoted all the same."""
    name = model_name(scenario)
    known = client.get_model_version(name, version)
    before = known.description or ""
    still_true = [part for part in before.split("\n\n") if not part.startswith(NEXT)]
    text = "\n\n".join(still_true).replace(REFUSED_BY, ALTHOUGH)[:LONGEST]
    if text != before and known.tags.get(OWN_TEXT) == _digest(before):
        client.update_model_version(name, version, description=text)
        client.set_model_version_tag(name, version, OWN_TEXT, _digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _contamination(metrics: dict[str, Any]) -> str:
    before, after = metrics.get("contamination_before"), metrics.get("contamination_after")
    if before is None or after is None:
        return UNLABELLED
    return f"By their labels, {after:.1%} of them have a defect; of all training images it is {before:.1%}."


def _threshold_line(threshold: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Return what a threshold promises, and what labelled test images say of it, as a paragraph."""
    wanted = threshold["target_fpr"]
    promised = threshold.get("promised_fpr", wanted)  # files of release 0.1 lack it
    line = f"Threshold {threshold['value']:.4f}: promises {promised:.2%} false positives"
    line += f" (wanted: {wanted:.2%})" if promised != wanted else ""
    line += f", from {threshold['n']} images"
    measured, found = metrics.get("fpr_at_threshold"), metrics.get("recall_at_threshold")
    if measured is None:
        return f"{line}. No labelled normal test image tells whether it keeps that."
    recall = f", and finds {found:.1%} of the defects" if found is not None else ""
    return f"{line}. On labelled test images it has **{measured:.1%} false positives**{recall}."


def bursts_line(bursts: Bursts) -> str:
    """Return whether images that follow each other by name are alike, and what follows from it, as a paragraph."""
    if bursts.alike:
        said = bursts.describe()
        return f"**{said[:1].upper()}{said[1:]}.**"
    return (
        f"Images that follow each other by name are no more alike than others: of {bursts.tested}, {bursts.together} "
        f"score high where their neighbours are held out too, {bursts.alone} where they are held out alone."
    )


def finding_line(finding: Finding) -> str:
    """Return the outcome of one check as a sentence."""
    return f"{finding.name} {WORDS[finding.outcome]}: {_seen(finding)}; expected {finding.expected}"


def _seen(finding: Finding) -> str:
    seen = finding.observed
    return seen if len(seen) <= LONGEST_FINDING else f"{seen[: LONGEST_FINDING - 1]}…"
