"""`python -m orchestration slices`: scenarios worked on several machines, and their union here."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from llbnad.errors import LlbnadError

app = typer.Typer(
    no_args_is_help=True,
    help="Scenarios on many machines: each one is worked in a slice of the repository, git and DVC's remote carry it.",
)
OWN_MACHINE = Path(".dvc") / "tmp" / "machine"  # folder of this machine where LLBNAD_MACHINE names none
Scenarios = Annotated[list[str], typer.Argument(help="Scenarios of params.yaml.")]


@app.command()
def status() -> None:
    """List the slices in the remote repository: how many stages are recorded, by which machine, and when."""
    from orchestration.pipeline import lock_blocks
    from orchestration.pipeline.params import load_params
    from orchestration.pipeline.paths import PARAMS
    from orchestration.slices.refs import fetch, records

    root = Path.cwd()
    scenarios = load_params(root / PARAMS).scenarios
    fetch(root)
    found = {record.scenario: record for record in records(root)}
    table = Table(title="slices in the remote repository")
    for heading in ("scenario", "stages", "machine", "when", "last"):
        table.add_column(heading)
    for name in [*scenarios, *sorted(found.keys() - scenarios.keys())]:
        if name not in found:
            table.add_row(name, "–", "", "", "nobody has taken it")
            continue
        record = found[name]
        stages = lock_blocks.stages_of(root, name) if name in scenarios else []
        total = f"of {len(stages)}" if stages else "(no scenario any more)"
        done = len({*stages} & record.entries.keys()) if stages else len(record.entries)
        table.add_row(name, f"{done} {total}", record.by, record.when, record.what)
    Console(highlight=False).print(table)


@app.command()
def work(scenarios: Scenarios) -> None:
    """Work SCENARIOS on this machine, one after another, and publish each stage when it is finished.

    What another machine has published is not computed again. LLBNAD_MACHINE names the folder of this machine.
    """
    from orchestration.pipeline import dvc
    from orchestration.pipeline.cluster import MACHINE
    from orchestration.slices.run import work as run

    root, failed = Path.cwd(), {}
    machine = Path(os.environ.get(MACHINE) or root / OWN_MACHINE)
    for scenario in scenarios:
        try:
            for stage, outcome in run(root, machine, scenario, lambda line: print(f"  {line}", flush=True)):
                print(f"{scenario}: {stage}: {outcome}", flush=True)
        except KeyboardInterrupt:
            print("interrupted; published stages are kept, the same command goes on from here", file=sys.stderr)
            raise typer.Exit(130) from None
        except LlbnadError as error:
            print(f"{scenario} failed: {error}", file=sys.stderr, flush=True)
            failed[scenario] = error
    if failed:
        reasons = [f"{name}: {str(error).splitlines()[0]}" for name, error in failed.items()]
        raise dvc.DvcError("\n".join([f"{len(failed)} of {len(scenarios)} scenarios failed", *reasons]))


@app.command()
def collect() -> None:
    """Put the records of all slices into dvc.lock here. `dvc pull` then brings the bytes that you want to see."""
    from orchestration.slices.collect import collect as run

    done = run(Path.cwd(), lambda line: None)
    print(f"{done.slices} slices with {done.stages} stages: {len(done.changed)} entries of dvc.lock are new")
    if done.unfinished:
        print(f"not finished yet: {', '.join(done.unfinished)}")
    if done.gone:
        print(f"left out, since params.yaml does not have them: {', '.join(done.gone)}; `… slices drop` forgets them")
    if done.changed:
        print("next: `git commit dvc.lock`, and `dvc pull evaluation@SCENARIO` for what you want to look at")


@app.command()
def drop(scenarios: Scenarios) -> None:
    """Forget the slices of SCENARIOS in the remote repository. Entries of dvc.lock and bytes stay."""
    from orchestration.slices.worker_slice import drop as forget

    for scenario in scenarios:
        forget(Path.cwd(), scenario)
        print(f"{scenario}: its slice is forgotten")
