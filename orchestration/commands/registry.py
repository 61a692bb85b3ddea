"""`python -m orchestration registry`: judge, promote, roll back and list the detectors of a line."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orchestration.pipeline import pipes
from orchestration.pipeline.params import SCENARIO_NAME, load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.suspects import unjudged_suspects
from orchestration.registry.store import (
    EXIT_REFUSED,
    MD5,
    PREVIOUS,
    REFUSED,
    UNPROVEN,
    WITHDRAWN,
    RegistryError,
    champion_of,
    crown,
    model_name,
    move_alias,
    registry_client,
    version_page,
    versions,
)

app = typer.Typer(no_args_is_help=True, help="The model registry: which detector of a line is in use.")
WORDS = {"passed": "ok     ", "failed": "REFUSED", "skipped": "skipped"}  # outcomes of a check


def _name(line: str) -> str:
    """Return the name of a line, or of one that params.yaml has no longer.

    Raises:
        ConfigError: no line can be called so.
    """
    if not SCENARIO_NAME.fullmatch(line):
        load_params(PARAMS).scenario(line)
    return line


Line = Annotated[str, typer.Argument(help="Scenario of params.yaml.", callback=_name)]


@app.command()
def challenge(line: Line) -> None:
    """Judge and register LINE's newest detector; exit code 3 if it is refused. The champion stays as it is."""
    from orchestration.registry.register_version import challenge as run

    report = run(line)
    findings = report["findings"]
    for finding in findings:
        print(f"{WORDS[finding['outcome']]}  {finding['name']:14} {finding['observed']}", end="")
        print(f"  (expected {finding['expected']})")
    print(f"version {report['version']} of {report['name']}" + (" is new" if report["registered"] else " was there"))
    if report["advice"]:
        print(f"version {report['version']}: {report['advice']}")
    print(f"next: {next_step(line, report)}")
    rows = [(one["name"], one["outcome"], one["observed"], one["expected"]) for one in findings]
    left_out = [one["name"] for one in findings if one["outcome"] == "skipped"]
    pipes.report(
        {
            "version": report["version"],
            "registered": report["registered"],
            "champion": report["champion"] or "none yet",
            **_shown(report["facts"], findings),
            "suspects to review": unjudged_suspects(Path(), load_params(PARAMS), line),
            "registry": pipes.link(report["page"]),
            "advice": report["advice"] or "compared with the champion",
            "skipped": ", ".join(left_out) or "none",
            "findings": pipes.table(("check", "outcome", "observed", "expected"), rows),
        },
        report["md5"],
        [_check(finding) for finding in findings],
    )
    if any(finding["outcome"] == "failed" for finding in findings):
        raise typer.Exit(EXIT_REFUSED)


def next_step(line: str, report: Mapping[str, Any]) -> str:
    """Return what to type after a challenge of LINE, from its report."""
    program, version = "python -m orchestration", report["version"]
    look, promotion = f"`{program} review {line} --out review.html`", f"`{program} registry promote {line} {version}`"
    if lost := [one["name"] for one in report["findings"] if one["outcome"] == "failed"]:
        return f"refused by {', '.join(lost)}: {look} shows the suspects; {promotion} promotes it all the same"
    if report["champion"] == version:
        return f"nothing: version {version} is champion already"
    if report["champion"] is None:
        return f"{look} shows the suspects, then {promotion} makes it champion"
    return f"{promotion} makes it champion instead of version {report['champion']}"


def _shown(tags: Mapping[str, str], findings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return threshold, images, AUROC and checks of a version for people, from `facts` or its tags."""
    return {
        "threshold": tags.get("threshold", "none"),
        "kept": f"{tags.get('kept', '?')} of {tags.get('images', '?')} images",
        "AUROC": tags.get("image_auroc", "no labels"),
        "checks": outcomes(findings) or "none",
    }


def _check(finding: Mapping[str, Any]) -> pipes.Check:
    """Return one finding of `llbnad.monitoring.champion_checks` as the result of an asset check.

    Dagster knows no check that was skipped, once it has a result. A warning has no green tick and blocks nothing.
    """
    observed, expected, outcome = finding["observed"], finding["expected"], finding["outcome"]
    word = {"passed": "", "failed": "refused: ", "skipped": "skipped: "}[outcome]
    description = f"{word}{observed}, expected {expected}"
    details = {"outcome": outcome, "observed": observed, "expected": expected}
    return pipes.Check(
        finding["name"], outcome == "passed", description, "WARN" if outcome == "skipped" else "ERROR", details
    )


@app.command()
def promote(
    line: Line,
    version: Annotated[str | None, typer.Argument(help="Its number.")] = None,
    unless_withdrawn: Annotated[bool, typer.Option(help="Leave a version alone that was rolled back by hand.")] = False,
    unless_refused: Annotated[bool, typer.Option(help="Leave a version alone that a check refused.")] = False,
) -> None:
    """Make a version champion, whatever the checks said of it."""
    with registry_client(line) as client:
        known = [str(one.version) for one in versions(client, line)]
        if not known:
            load_params(PARAMS).scenario(line)
            raise RegistryError(f"{model_name(line)} has no version: run `… registry challenge {line}` first")
        if version is not None and version not in known:
            raise RegistryError(f"{model_name(line)} has no version {version}; there are {known}")
        chosen = version or known[0]
        tags = client.get_model_version(model_name(line), chosen).tags
        reason = tags.get(WITHDRAWN)
        if unless_withdrawn and reason:
            raise RegistryError(
                f"version {chosen} of {model_name(line)} was {reason}: to promote it all the same: "
                f"python -m orchestration registry promote {line} {chosen}"
            )
        if unless_refused and (lost := tags.get(REFUSED)):
            raise RegistryError(
                f"version {chosen} of {model_name(line)} was refused ({lost}): to promote it all the same: "
                f"python -m orchestration registry promote {line} {chosen}"
            )
        before = champion_of(client, line)
        said = crown(client, line, chosen, before)
        advice = tags.get(UNPROVEN, "compared with the champion before")
        print(said, *([advice] if UNPROVEN in tags else []), sep="\n")
        shown = {"version": chosen, "outcome": said, "before": str(before.version) if before else "none"}
        facts = _shown(tags, json.loads(tags.get("checks", "[]")))
        page = pipes.link(version_page(line, chosen))
        pipes.report({**shown, **facts, "registry": page, "advice": advice}, tags.get(MD5))


@app.command()
def rollback(line: Line) -> None:
    """Make the previous champion the champion again. No schedule promotes the withdrawn version again."""
    with registry_client(line) as client:
        current = champion_of(client, line)
        if current is None:
            load_params(PARAMS).scenario(line)
        before = current.tags.get(PREVIOUS) if current else None
        if current is None or before is None or before == str(current.version):
            raise RegistryError(f"{model_name(line)} has no champion before the present one: `… registry list {line}`")
        move_alias(client, client.get_model_version(current.name, before))
        client.set_model_version_tag(current.name, str(current.version), WITHDRAWN, "rolled back by hand")
        print(f"version {before} of {current.name} is champion again, version {current.version} was rolled back")


@app.command("list")
def list_versions(line: Line) -> None:
    """List all versions of LINE's detector, newest first; below the table, what is to be known of each."""
    table, notes = Table(title=model_name(line), expand=False, padding=(0, 0)), []
    for heading in ("version", "made", "alias", "images", "kept", "threshold", "AUROC", "checks"):
        table.add_column(heading, overflow="fold")
    with registry_client(line) as client:
        known = versions(client, line)
        if not known:
            load_params(PARAMS).scenario(line)
        for one in known:
            tags, aliases = one.tags, client.get_model_version(one.name, one.version).aliases
            note = tags.get(WITHDRAWN) or (f"refused: {tags[REFUSED]}" if REFUSED in tags else tags.get(UNPROVEN, ""))
            commit, dirty, _ = tags.get("git.commit", "").partition("-dirty")
            made = f"{datetime.fromtimestamp(one.creation_timestamp / 1000):%Y-%m-%d %H:%M}"
            facts = [tags.get(name, "") for name in ("images", "kept", "threshold", "image_auroc")]
            row = [str(one.version), made, ", ".join(aliases), *facts, outcomes(json.loads(tags.get("checks", "[]")))]
            table.add_row(*row)
            origin = f"{one.version}: model {tags.get(MD5, '')[:8]}, code {commit[:8]}{dirty}"
            notes.append(f"{origin}; {note}" if note else origin)
    console = Console(highlight=False)
    console.print(table)
    for line_below in notes:
        console.print(line_below, markup=False)


def outcomes(findings: Sequence[Mapping[str, Any]]) -> str:
    """Return how many checks had which outcome."""
    counts = Counter(finding["outcome"] for finding in findings)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("failed", "passed", "skipped") if counts[outcome])
