"""`make run`: everything in params.yaml through `dvc repro`, with an ETA over all stages and a table at the end."""

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table

from llbnad.encoders import recipe
from orchestration.commands.progress import Progress, SliceProgress
from orchestration.pipeline import dvc
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.in_place import refuse_changed_in_place, remember
from orchestration.pipeline.outputs import read_summary
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import FINAL_STAGE, PARAMS, stage_dir
from orchestration.pipeline.process import echoed_stderr
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.verify import refuse_damage
from orchestration.slices.run import run_here
from orchestration.slices.workplace import ABOVE
from orchestration.tracking.best_effort import record_scenario, unrecorded
from orchestration.tracking.scenario_run import compared_with_earlier
from orchestration.tracking.server import pages, tracking_uri

MOST_NAMED = 12  # stages; of more, their kinds are counted
METHODS = ("none", "llbnad", "oracle", "random")


def reproduce(root: Path, sliced: bool | None = None) -> None:
    """Reproduce all stages, report them to Dagster, and show the results.

    Args:
        root: root of the repository.
        sliced: whether the scenarios are worked in slices; by default, above `ABOVE` scenarios.

    Raises:
        ConfigError: params.yaml is wrong; nothing has run.
        OfflineError: an encoder's weights are missing; nothing has run.
        DvcError: a stage failed; the outputs of earlier stages are kept. In slices, the other scenarios went on.
    """
    from orchestration.assets.backfill import record_materialisations  # imports Dagster, which takes a second
    from orchestration.assets.partitions import all_stages, patterns

    params = load_params(root / PARAMS)
    for scenario in params.scenarios.values():
        recipe(scenario.encoder)  # the encoder, its settings and weights are there: said now, not after half the work
    console = Console(highlight=False)
    started, began, failed = time.monotonic(), time.time(), dict[str, str]()
    if sliced or (sliced is None and len(params.scenarios) > ABOVE):
        slices = SliceProgress(console)
        failed = run_here(root, params, slices.begin, slices.hear_slice)
        worked, executed = slices.scenarios, slices.ran
        restored = 0  # nothing to tell: a new slice restores what is at home already
        all_ran = False
    else:
        stages = all_stages(patterns(root, params), params)
        progress = Progress(console, len(stages))
        _repro(root, progress)
        worked, executed, restored = [*params.scenarios], progress.ran, progress.restored
        all_ran = len(executed) + restored >= len(stages)
    if executed or restored:
        remember(root, began)
    if executed or restored:
        done = [f"{_counted(len(executed))} ran ({_named(executed)})"] if executed else []
        done += [f"{_counted(restored)} came from the cache"] if restored else []
        seconds = time.monotonic() - started
        console.print(f"{' and '.join(done)}, in {seconds:.0f} s{'' if all_ran else '; the others had not changed'}.")
    elif not failed:
        console.print("Nothing to do: data, parameters and code are as they were; all results are up to date.")
    late = unrecorded(name for name in worked if name not in failed)
    # a server that is down is waited for once
    if arrived := [*takewhile(lambda name: record_scenario(name, anew=False), late)]:
        console.print(f"recorded in MLflow, from the cache or not sent before: {', '.join(arrived)}")
    if worked:
        record_materialisations(root, worked)
    console.print(results_table(params, root, failed))
    for name in worked:
        is_new = f"{FINAL_STAGE}@{name}" in executed or name in arrived
        if is_new and (words := compared_with_earlier(name, read_settings(name))):
            console.print(f"{name}, {words}")
    if failed:
        told = [f"{scenario}: {_short(reason)}" for scenario, reason in failed.items()]
        raise dvc.DvcError("\n".join([f"{len(failed)} of {len(params.scenarios)} scenarios failed", *told]))
    console.print("pictures      data/purified/*/plots, data/evaluation/*/plots")
    console.print("suspects      data/purified/*/suspects.csv: the images that deserve a look, with score and reason")
    console.print("numbers       data/evaluation/*/{metrics.json,comparison.csv}, data/purified/*/rejected.parquet")
    console.print("Dagster UI    make ui, which prints its address")
    console.print(f"MLflow UI     make ui, then {pages(tracking_uri())}")
    console.print("champions     python -m orchestration status: which detector of a scenario is in use, if any")


def run(
    verify: Annotated[bool, typer.Option(help="First compare the content of all outputs with dvc.lock.")] = False,
    sliced: Annotated[
        bool | None,
        typer.Option(
            "--slices/--no-slices",
            help="Work each scenario in a folder of its own, runtime.processes at once, or all in one `dvc repro`. "
            f"By default, in slices above {ABOVE} scenarios.",
        ),
    ] = None,
) -> None:
    """Purify, train and compare as params.yaml says. Only stages that a change affects are computed."""
    try:
        if verify:
            refuse_damage(Path.cwd())
        else:
            refuse_changed_in_place(Path.cwd())
        reproduce(Path.cwd(), sliced)
    except KeyboardInterrupt:
        print("interrupted; finished stages are kept, `make run` goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


def results_table(params: Params, root: Path, failed: Collection[str] = ()) -> Table:
    """Return a table of the I-AUROC of every method and of the contamination before and after, per scenario.

    With it stands how many training images were kept, which is all that is known without labels.
    """
    protocol = (
        "defects: their share of the training images, and of the kept ones\n"
        "image AUROC on the same test images; last model, no choice on the test set; –: labels are missing"
    )
    table = Table(title="LLBNAD and its comparators", caption=protocol)
    for heading in ("scenario", "kept", "defects", *METHODS):
        table.add_column(
            "LLBNAD" if heading == "llbnad" else heading, justify="left" if heading == "scenario" else "right"
        )
    for scenario in params.scenarios:
        if scenario in failed:
            table.add_row(scenario, "failed")
            continue
        rows = pd.read_csv(root / stage_dir("evaluation", scenario) / "comparison.csv").set_index("method")
        own = rows.loc["llbnad"]
        counts = read_summary(scenario, root)
        kept = f"{counts['n_selected']} of {counts['n_train']}"
        before, after = (_shown(own[name], ".1%") for name in ("contamination_before", "contamination_after"))
        values = [_shown(rows["image_auroc"].get(method), ".3f") for method in METHODS]
        table.add_row(scenario, kept, f"{before} → {after}", *values)
    return table


@retry_when_busy
def _repro(root: Path, progress: Progress) -> None:
    """Run `dvc repro`. A call after waiting for another process does not repeat finished stages."""
    progress.seen, lines = 0, []
    with (
        echoed_stderr() as (stderr, complaints),
        dvc.running(["--wait-for-lock", "repro"], root, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            progress.hear(lines[-1])
        code = process.wait()
    said = complaints.decode(errors="replace")
    dvc.raise_if_not_kept("`dvc repro`", said)
    if code != 0:
        dvc.raise_if_busy("`dvc repro`", said, root)
        raise dvc.DvcError("\n".join(["`dvc repro` stopped; the reason stands above", *lines[-5:]]))


def _counted(stages: int) -> str:
    return f"{stages} stage" if stages == 1 else f"{stages} stages"


def _named(stages: Sequence[str]) -> str:
    """Return the names of stages; of many, how often each ran."""
    if len(stages) <= MOST_NAMED:
        return ", ".join(stages)
    kinds = Counter(stage.partition("@")[0] for stage in stages)
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items())


def _shown(value: Any, form: str) -> str:
    return "–" if value is None or pd.isna(value) else format(value, form)


def _short(reason: str) -> str:
    """Return the errors in what a failed stage printed, or the end of it."""
    lines = [line for line in reason.splitlines() if line]
    return " ".join([line for line in lines if line.startswith("error: ")] or lines[-1:])
