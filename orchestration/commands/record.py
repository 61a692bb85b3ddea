"""`python -m orchestration record`: send a scenario's record to MLflow again, for example after its server was down."""

import json
from typing import Annotated

import typer

from orchestration.tracking.best_effort import record_scenario, unrecorded
from orchestration.tracking.scenario_run import link_path


def record(
    scenarios: Annotated[list[str], typer.Argument(help="Scenarios of params.yaml.")],
    missing: Annotated[bool, typer.Option("--missing", help="Only those whose results MLflow was not sent.")] = False,
) -> None:
    """Record scenarios in MLflow from their outputs on disk; exit code 1 if a record did not arrive."""
    if missing:
        scenarios = unrecorded(scenarios)
    arrived = [record_scenario(scenario, anew=not missing) for scenario in scenarios]
    for scenario, done in zip(scenarios, arrived, strict=True):
        if done:
            print(f"recorded {scenario}: {json.loads(link_path(scenario).read_text())['url']}")
    if not all(arrived):
        raise typer.Exit(1)
