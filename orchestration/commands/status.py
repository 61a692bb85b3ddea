"""`python -m orchestration status`: one screen that says where each scenario stands.

With a scenario, each of its stages follows that is not up to date, and why.
"""

import json
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llbnad.config import METHOD
from llbnad.errors import LlbnadError
from llbnad.utils.files import file_digest
from orchestration.line.inbox import look
from orchestration.line.lines import known_lines, new_images
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.outputs import noisy_manifest
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import FINAL_STAGE, INCOMING, PARAMS, stage_dir
from orchestration.pipeline.settings import read_settings, settings_path
from orchestration.pipeline.staleness import described, states, why_behind
from orchestration.pipeline.suspects import unjudged_suspects


@dataclass(frozen=True)
class Standing:
    """Where a scenario stands. A dash stands for what there is none of."""

    scenario: str
    stages: str  # up to date, stale with the first names, or never ran
    last_run: str  # when its evaluation was written, local time
    champion: str  # version in use, and whether a newer one waits or was refused
    suspects: str  # rejected images that nobody has judged, of all
    inbox: str  # files that wait to be taken in, and images that no finished training has seen
    because: dict[str, str]  # why a stage is not up to date, by stage


def status(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(help="Scenarios of params.yaml, whose stale stages are listed; all by default."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects for programs.")] = False,
) -> None:
    """Show where each scenario stands: stages, date of the results, champion, suspects, inbox. Nothing is changed."""
    root = Path.cwd()
    params = load_params(root / PARAMS)
    chosen = list(dict.fromkeys(scenarios or params.scenarios))
    for scenario in chosen:
        params.scenario(scenario)
    found = retry_when_busy(states)(root, params, chosen)
    champions, unknown = _champions(root, chosen)
    lines = {*known_lines(root, params)}
    rows = [
        Standing(
            scenario,
            described(found[scenario]),
            _last_run(root, scenario),
            champions.get(scenario, "?" if unknown else "–"),
            _suspects(root, params, scenario),
            _inbox(root, scenario) if scenario in lines else "–",
            why_behind(found[scenario]),
        )
        for scenario in chosen
    ]
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
        return
    table = Table(title="scenarios")
    for heading in ("scenario", "stages", "results written", "champion", "to review", "inbox"):
        table.add_column(heading, no_wrap=heading == "scenario", overflow="fold")  # names are never cut
    for row in rows:
        table.add_row(*[getattr(row, field.name) for field in fields(row) if field.type is str])
    console = Console(highlight=False)
    console.print(table)
    for row in rows if scenarios else ():
        if row.because:
            console.print(_reasons(row))
        elif words := _beside(row.scenario):
            console.print(f"{row.scenario}: {words}", markup=False)
    if not scenarios and any(row.because for row in rows):
        console.print("`python -m orchestration status SCENARIO` lists its stages that are not up to date, and why")
    for line in _notes(rows, sorted(lines - {*params.scenarios}), unknown, root):
        console.print(line, markup=False)


def _beside(scenario: str) -> str:
    """Return how the results compare with what stood there before; empty where they are not on this machine."""
    from orchestration.tracking.scenario_run import compared_with_earlier

    here = settings_path(scenario).exists() and noisy_manifest(scenario).exists()
    return compared_with_earlier(scenario, read_settings(scenario)) if here else ""


def _reasons(row: Standing) -> Table:
    """Return a table of the stages that are not up to date, causes first."""
    table = Table(title=f"{row.scenario}: what `make run` computes, or finds in the cache")
    table.add_column("stage", overflow="fold")
    table.add_column("because", overflow="fold")
    for stage, why in row.because.items():
        table.add_row(stage, why)
    return table


def _last_run(root: Path, scenario: str) -> str:
    file = root / stage_dir(FINAL_STAGE, scenario) / "metrics.json"
    return f"{datetime.fromtimestamp(file.stat().st_mtime):%Y-%m-%d %H:%M}" if file.exists() else "–"


def _champions(root: Path, scenarios: list[str]) -> tuple[dict[str, str], str]:
    """Return the version in use by scenario, and why it is not known; empty if it is."""
    from orchestration.tracking.server import MLFLOW_FOLDER, is_http, tracking_uri

    if not is_http(tracking_uri()) and not (root / MLFLOW_FOLDER / "mlflow.db").exists():
        return {}, ""
    from orchestration.registry.store import MD5, REFUSED, champion_of, registry_client, versions

    found = {}
    try:
        for scenario in scenarios:
            with registry_client(scenario) as client:
                known, champion = versions(client, scenario), champion_of(client, scenario)
                if not known:
                    continue
                newest = known[0]
                said = f"version {champion.version}" if champion else "none"
                if champion is None or int(newest.version) > int(champion.version):
                    fate = "refused" if REFUSED in newest.tags else "not promoted"
                    said += f"; version {newest.version} {fate}"
                detector = root / stage_dir("detector", scenario) / f"{METHOD}.safetensors"
                if detector.exists() and file_digest(detector, "md5") not in {one.tags.get(MD5) for one in known}:
                    said += "; the newest detector was not challenged"
                found[scenario] = said
    except LlbnadError as error:
        return found, str(error)
    return found, ""


def _suspects(root: Path, params: Params, scenario: str) -> str:
    try:
        return unjudged_suspects(root, params, scenario)
    except LlbnadError as error:
        return f"? ({error})"


def _inbox(root: Path, line: str) -> str:
    waiting = len(look(root / INCOMING / line))
    return f"{waiting} waiting, {new_images(root, line) - waiting} taken in and not trained on"


def _notes(rows: list[Standing], new_lines: list[str], unknown: str, root: Path) -> list[str]:
    notes = [f"{line}: a new line with {len(look(root / INCOMING / line))} files; `… ingest` takes it in"
             for line in new_lines]  # fmt: skip
    if unknown:
        notes.append(f"champions are not known: {unknown}")
    if any("up to date" not in row.stages for row in rows):
        notes.append("`make run` brings everything up to date and computes only what changed")
    if any(row.suspects[0].isdigit() and not row.suspects.startswith("0 ") for row in rows):
        notes.append("`python -m orchestration review SCENARIO --out review.html` shows the suspects to judge")
    return notes
