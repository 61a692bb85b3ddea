"""Facts and findings of a version in words, as the terminal and Dagster show them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.pipeline import pipes

PROGRAM = "python -m orchestration"
SHORT = 240  # characters of a reason that are told within a sentence
REMEDIES = {  # by the check that refuses, where the suspects are no help
    "threshold": "train on more images, or with another policy (`selection`) or detector: run the scenario again",
    "labelled": "train with another policy (`selection`) or detector: run the scenario again; or change its limits "
    "promotion.min_auroc and promotion.max_auroc_loss in params.yaml",
    "kept_share": "if another policy (`selection`) was meant to keep another share, promote it by hand or change "
    "promotion.max_kept_change in params.yaml, else look at the data and the policy",
}
REVIEW = "look at the suspects, say in the review file what they are, then run the scenario again (job run_scenario)"
COMPARED = "none: it was compared with the champion of that time"  # advice on a version


def outcomes(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return how many checks had which outcome."""
    counts = Counter(finding["outcome"] for finding in findings)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("failed", "passed", "skipped") if counts[outcome])


def named(findings: Sequence[Mapping[str, Any]], outcome: str) -> str:
    """Return the names of the checks with this outcome, or `none`."""
    return ", ".join(finding["name"] for finding in findings if finding["outcome"] == outcome) or "none"


def version_facts(tags: Mapping[str, str], findings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return threshold, expected false positives, images, AUROC and checks of a version, from `facts` or its tags."""
    auroc = tags.get("image_auroc", "no labels")
    return {
        "threshold": tags.get("threshold", "none"),
        "false positives": tags.get("false_positives", "not known"),
        "kept": f"{tags.get('kept', '?')} of {tags.get('images', '?')} images",
        "AUROC": f"{auroc} on all labelled test images" if auroc.replace(".", "").isdigit() else auroc,
        "checks": outcomes(findings) or "none",
    }


def as_check(finding: Mapping[str, Any]) -> pipes.Check:
    """Return one finding of `llbnad.monitoring.challenger_checks` as the result of an asset check."""
    observed, expected, outcome = finding["observed"], finding["expected"], finding["outcome"]
    passed = {"passed": True, "failed": False, "skipped": None}[outcome]
    description = f"{'refused: ' if outcome == 'failed' else ''}{observed}, expected {expected}"
    details = {"outcome": outcome, "observed": observed, "expected": expected}
    return pipes.Check(finding["name"], passed, description, metadata=details)


def next_step(line: str, report: Mapping[str, Any], in_dagster: bool = False) -> str:
    """Return what to do after a challenge of LINE, from its report: what to type, or what Dagster does next."""
    version = report["version"]
    look, promotion = f"`{PROGRAM} review {line} --out review.html`", f"`{PROGRAM} registry promote {line} {version}`"
    failed = [one for one in report["findings"] if one["outcome"] == "failed"]
    if failed:
        why = _why(failed, f"{look} shows the suspects")
        if version != report["champion"]:
            return f"refused by {why}; {promotion} promotes it all the same"
        return (
            f"version {version} is in use; if it came now, it would be refused by {why}; "
            "train a better one, or change the limits under promotion in params.yaml"
        )
    if in_dagster and version != report["champion"]:
        return f"asset `champion` promotes it, in job run_scenario as the next step; {look} shows the suspects"
    if report["champion"] is None:
        return f"{look} shows the suspects, then {promotion} makes it champion"
    return next_after(line, version, report["champion"])


def remedies(lost: Sequence[str]) -> str:
    """Return what to do about refusals by these checks, where it is known; else an empty text.

    Several begin with the check that they are for.
    """
    known = {name: REMEDIES[name] for name in lost if name in REMEDIES}
    return "; ".join(f"{name}: {text}" if len(known) > 1 else text for name, text in known.items())


def _why(failed: Sequence[Mapping[str, Any]], look: str) -> str:
    """Return each check that refuses with what to do about it; those where it is to look at the suspects come last."""
    parts = [f"{_reason(one)}: {REMEDIES[one['name']]}" for one in failed if one["name"] in REMEDIES]
    if others := [_reason(one) for one in failed if one["name"] not in REMEDIES]:
        parts.append(f"{', '.join(others)}: {look}")
    return "; by ".join(parts)


def _reason(finding: Mapping[str, Any]) -> str:
    """Return a check's name, with what it saw if that is short."""
    seen = f"{finding['observed']}, expected {finding['expected']}"
    return f"{finding['name']} ({seen})" if len(seen) <= SHORT else str(finding["name"])


def next_after(line: str, version: str, champion: str, unproven: bool = False) -> str:
    """Return what to type when a version of LINE was judged and version `champion` is in use.

    Args:
        line: name of the line.
        version: the version that was judged.
        champion: the version in use.
        unproven: whether the version was judged without a champion to compare it with.
    """
    if champion == version and unproven:
        return f"`{PROGRAM} review {line} --out review.html`: version {version} is in use, compared with nothing: look"
    if champion == version:
        return f"nothing: version {version} is champion"
    return f"`{PROGRAM} registry promote {line} {version}` makes it champion instead of version {champion}"
