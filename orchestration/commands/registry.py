"""`python -m orchestration registry`: judge, promote, roll back and list the detectors of a line."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from llbnad.errors import LlbnadError
from orchestration.pipeline import pipes
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.params import SCENARIO_NAME, load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.staleness import in_words, states, why_behind
from orchestration.pipeline.suspects import unjudged_suspects
from orchestration.registry.comparison_files import fetch_champion_suspects
from orchestration.registry.model_card import say_promoted
from orchestration.registry.promotion import refusal
from orchestration.registry.shown import COMPARED, PROGRAM, as_check, named, next_step, outcomes, version_facts
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

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

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
def challenge(
    line: Line,
    promote_it: Annotated[
        bool, typer.Option("--promote", help="Make it champion unless a check refuses it, as Dagster's jobs do.")
    ] = False,
) -> None:
    """Judge and register LINE's newest detector; exit code 3 if it is refused. The champion stays without --promote."""
    from orchestration.registry.register_version import challenge as run

    report = run(line)
    findings = report["findings"]
    if not pipes.is_heard() and (behind := _behind(line)):
        print(behind)
    for finding in findings:
        print(f"{WORDS[finding['outcome']]}  {finding['name']:14} {finding['observed']}", end="")
        print(f"  (expected {finding['expected']})")
    print(f"version {report['version']} of {report['name']}" + (" is new" if report["registered"] else " was there"))
    if report["advice"]:
        print(f"version {report['version']}: {report['advice']}")
    lost = named(findings, "failed")
    if not promote_it or lost != "none":
        print(f"next: {next_step(line, report, pipes.is_heard())}")
    _tell(
        "challenger",
        line,
        {
            "version": report["version"],
            "registered": "by this challenge" if report["registered"] else "earlier: the detector was a version",
            "refused": lost,
            "next": next_step(line, report, pipes.is_heard()),
            "champion": report["champion"] or "none yet",
            **version_facts(report["facts"], findings),
            "suspects to review": unjudged_suspects(Path(), load_params(PARAMS), line),
            "registry": pipes.link(report["page"]),
            **({} if lost != "none" and not report["advice"] else {"advice": report["advice"] or COMPARED}),
            "skipped": named(findings, "skipped"),
            # a table would be too wide for Dagster's pages
            **{
                f"check {one['name']}": f"{one['outcome']}: {one['observed']}; expected {one['expected']}"
                for one in findings
            },
        },
        report["md5"],
        [as_check(finding) for finding in findings],
    )
    if lost != "none":
        raise typer.Exit(EXIT_REFUSED)
    if promote_it:
        promote(line, report["version"], if_accepted=True)


def _behind(line: str) -> str:
    """Return what LINE's detector on disk does not have of the settings, code and data; empty if it has all."""
    try:
        found = retry_when_busy(states)(Path(), load_params(PARAMS), [line])[line]
    except LlbnadError as error:
        return f"note: it is not known whether the detector is up to date: {error}"
    if not why_behind(found):
        return ""
    return f"note: the detector is older than the settings, code or data: {in_words(found)}; `make run` trains it anew"


def _tell(
    asset: str, line: str, metadata: Mapping[str, Any], version: str | None, checks: Sequence[pipes.Check] = ()
) -> None:
    """Report to the asset that started this command; in a terminal, to Dagster's record, whose pages then show it."""
    if pipes.is_heard():
        pipes.report(metadata, version, checks)
        return
    from orchestration.assets.outside_registry import tell  # imports Dagster, which takes a second

    if reason := tell(Path(), asset, line, metadata, version, checks):
        print(f"done, but Dagster's pages do not show it: {reason}", file=sys.stderr)


@app.command()
def promote(
    line: Line,
    version: Annotated[str | None, typer.Argument(help="Its number.")] = None,
    if_accepted: Annotated[
        bool, typer.Option(help="Leave a version alone that a check refused or people rolled back; exit code 3 then.")
    ] = False,
) -> None:
    """Make a version champion, whatever the checks said of it."""
    with registry_client(line) as client:
        known = [str(one.version) for one in versions(client, line)]
        if not known:
            load_params(PARAMS).scenario(line)
            raise RegistryError(f"{model_name(line)} has no version: run `… registry challenge {line}` first")
        if version is not None and version not in known:
            raise RegistryError(f"{model_name(line)} has no version {version}; there are {known}")
        chosen = client.get_model_version(model_name(line), version or known[0])
        before = champion_of(client, line)
        in_use = before is not None and str(before.version) == str(chosen.version)
        if if_accepted and not in_use and (reason := refusal(chosen.tags)):
            stays = f"version {before.version} stays champion" if before else "there is no champion"
            said = f"version {chosen.version} of {chosen.name} {reason}: {stays}; "
            said += f"to promote it all the same: {PROGRAM} registry promote {line} {chosen.version}"
            print(said)
            _tell_champion(line, before, said, before, refused=f"version {chosen.version}")
            raise typer.Exit(EXIT_REFUSED)
        said = crown(client, line, str(chosen.version), before)
        say_promoted(client, line, str(chosen.version))
        print(said, *([chosen.tags[UNPROVEN]] if UNPROVEN in chosen.tags else []), sep="\n")
        _tell_champion(line, chosen, said, before)


def _tell_champion(
    line: str, champion: "ModelVersion | None", said: str, before: "ModelVersion | None", refused: str = "none"
) -> None:
    """Report the version in use to the asset `champion`."""
    shown = {"outcome": said, "champion before": str(before.version) if before else "none", "refused": refused}
    if champion is None:
        _tell("champion", line, {"version": "none", **shown}, None)
        return
    fetch_champion_suspects(line, champion)
    version, tags = str(champion.version), champion.tags
    facts = version_facts(tags, json.loads(tags.get("checks", "[]")))
    advice = tags.get(UNPROVEN, COMPARED)
    page = pipes.link(version_page(line, version))
    _tell("champion", line, {"version": version, **shown, **facts, "registry": page, "advice": advice}, tags.get(MD5))


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
        again = client.get_model_version(current.name, before)
        move_alias(client, again)
        client.set_model_version_tag(current.name, str(current.version), WITHDRAWN, "rolled back by hand")
        said = f"version {before} of {current.name} is champion again, version {current.version} was rolled back"
        print(said)
        _tell_champion(line, again, said, current)


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
