"""Asset `inspected` and the sensor that starts it: images in data/inspect of lines that no `watch` looks after.

A run has no partition, because a line's runs wait for each other and scoring must not wait for a training.
"""

import hashlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from llbnad.errors import LlbnadError
from orchestration.assets.command import run_command
from orchestration.assets.pictures import picture
from orchestration.assets.retraining import FINISHED
from orchestration.inspection.chart import PICTURE
from orchestration.inspection.ledger import seen_in
from orchestration.inspection.watching import is_watched
from orchestration.line.inbox import Mark, lines, look, untouched
from orchestration.pipeline.params import ArrivalSettings, load_params
from orchestration.pipeline.paths import INSPECT, PARAMS, inspected_dir

INSPECTED, LINE_TAG = "inspected", "llbnad/inspect"
LOOK_SECONDS = 5


class InspectionConfig(dg.Config):
    """Run configuration of `inspected`."""

    line: str = Field(
        "",
        description="Required: production line whose images in data/inspect are scored. Nothing is scored without it",
    )


def inspected_asset(root: Path) -> dg.AssetsDefinition:
    """Return the asset `inspected` of the repository at `root`."""

    @dg.asset(
        name=INSPECTED,
        group_name="serving",
        kinds={"mlflow", "torch"},
        output_required=False,
        description="New images of a line's data/inspect, scored by its champion; the share of defects per hour",
    )
    def inspected(context: dg.AssetExecutionContext, config: InspectionConfig) -> Iterator[dg.MaterializeResult]:
        if not config.line:
            context.log.warning("nothing to score: name a line in the configuration, ops.inspected.config.line")
            return
        chart = root / inspected_dir(config.line) / PICTURE
        yield run_command(
            context,
            root,
            ["watch", config.line, "--once"],
            show=lambda: {"control chart (picture)": picture(chart)} if chart.exists() else {},
        )

    return inspected


inspect_job = dg.define_asset_job(
    "inspect",
    selection=dg.AssetSelection.assets(INSPECTED),
    description="Score the new images in data/inspect of a line, with its champion. The sensor `inspections` starts it",
)


def inspection_sensor(root: Path, settings: ArrivalSettings) -> dg.SensorDefinition:
    """Return the sensor `inspections` of the repository at `root`."""

    @dg.sensor(
        name="inspections",
        job=inspect_job,
        minimum_interval_seconds=max(LOOK_SECONDS, math.ceil(settings.stable_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches data/inspect; new images of a line that no `watch` looks after are scored",
    )
    def inspections(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            stable = load_params(root / PARAMS).arrival.stable_seconds
        except LlbnadError as error:
            return dg.SensorResult(skip_reason=str(error))
        requests, reasons = [], []
        for line, bad_name in lines(root, INSPECT).items():
            state = None if bad_name else _state(root, line, stable)
            if reason := bad_name or _must_wait(root, context.instance, line) or (None if state else "no new images"):
                reasons.append(f"{line}: {reason}")
                continue
            config = dg.RunConfig(ops={INSPECTED: InspectionConfig(line=line)})
            requests.append(dg.RunRequest(run_key=state, run_config=config, tags={LINE_TAG: line}))
        skipped = None if requests else "; ".join(reasons) or f"no folder in {INSPECT}"
        return dg.SensorResult(run_requests=requests, skip_reason=skipped)

    return inspections


def _must_wait(root: Path, instance: dg.DagsterInstance, line: str) -> str | None:
    if is_watched(root / inspected_dir(line)):
        return "a `watch` looks after it"
    wanted = dg.RunsFilter(tags={LINE_TAG: line}, statuses=list(set(dg.DagsterRunStatus) - FINISHED))
    return next((f"run {run.run_id[:8]} is at work" for run in instance.get_runs(wanted, limit=1)), None)


def _state(root: Path, line: str, stable_seconds: float) -> str | None:
    """Return a run key for the complete files without a row, or None if there is none.

    What a run left, because the line has no champion for instance, is asked for again each hour.
    """
    now, seen = look(root / INSPECT / line), seen_in(root / inspected_dir(line))
    marks = {path: Mark(found.st_ino, found.st_size, found.st_mtime_ns) for path, found in now.items()}
    new = {path: now[path] for path, mark in marks.items() if seen.get(path) != mark}
    complete = sorted(untouched(new, stable_seconds))
    if not complete:
        return None
    digest = hashlib.sha256()
    for path in complete:
        digest.update(os.fsencode(path) + repr(tuple(marks[path])).encode())
    return f"{line}-{digest.hexdigest()[:16]}-{int(time.time() // 3600)}"
