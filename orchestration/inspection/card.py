"""The card of a model: what it learnt from, what it promises, and how it passed its checks. All in words."""

import json
from collections.abc import Mapping
from pathlib import Path

from llbnad.errors import LlbnadError
from llbnad.model.model import Model
from llbnad.utils.files import file_digest


def file_facts(name: str, path: Path, model: Model) -> dict[str, str]:
    """Return what a model file says of itself."""
    facts = {
        "Model": name,
        "Detector": model.config.name,
        "Encoder": f"{model.encoder.name}, {model.encoder.input_size} px",
        "SHA-256 of the file": file_digest(path),
    }
    if model.threshold is None:
        return {**facts, "Threshold": "none: scores only"}
    facts["Threshold"] = model.threshold.describe()
    if model.threshold.unsure:
        facts["Unsure"] = f"from {model.threshold.unsure_low:.4f} to {model.threshold.unsure_high:.4f}"
    return facts


def registry_facts(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what the tags of a registered version say: its checks, and the hashes of its data."""
    facts = {}
    findings = json.loads(tags.get("checks", "[]"))
    if findings:
        facts["Checks"] = "; ".join(_finding(one) for one in findings)
    for tag, name in (("sensitivity", "Sensitivity"),
                      ("unproven", "Unproven"), ("refused", "Refused"), ("git.commit", "Code (git commit)"),
                      ("dvc.raw", "Data (DVC hash)"), ("dvc.purified", "Purified (DVC hash)")):  # fmt: skip
        if tag in tags:
            facts[name] = tags[tag]
    return facts


def champion_facts(line: str) -> dict[str, str]:
    """Return what the registry and the pipeline's outputs say of a line's champion.

    Raises:
        RegistryError: the registry does not answer.
    """
    from orchestration.registry.store import champion_of, registry_client

    with registry_client(line) as client:
        version = champion_of(client, line)
    return {} if version is None else {**_purification(line, version.tags), **registry_facts(version.tags)}


def _purification(line: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the counts of the purification that a version learnt from, if the outputs on disk are still that one's."""
    from orchestration.pipeline.outputs import read_summary
    from orchestration.pipeline.settings import read_settings
    from orchestration.tracking.provenance import lock_tags

    try:
        settings = read_settings(line)
        here = lock_tags(line, settings, ("purified",)).get("dvc.purified")
        if here is None or here != tags.get("dvc.purified"):
            return {"Learnt from": "unknown here: data/purified is of another version"}
        summary = read_summary(line)
        policy = settings.scenario(line).selection
    except (LlbnadError, OSError) as error:
        return {"Learnt from": f"unknown here: {error}"}
    kept, total = summary["n_selected"], summary["n_train"]
    overruled = f", of which people overruled {summary['n_overruled']}" if summary.get("n_overruled") else ""
    away = "rejected" if policy.by_evidence else "left out"
    facts = {"Learnt from": f"{kept} of {total} images; {total - kept} {away} by policy {policy.policy}{overruled}"}
    notes = " ".join(summary.get("notes", ()))
    return {**facts, "Notes": notes} if notes else facts


def _finding(finding: Mapping[str, str]) -> str:
    observed = "" if finding["outcome"] == "passed" else f" ({finding['observed']})"
    return f"{finding['name']} {finding['outcome']}{observed}"
