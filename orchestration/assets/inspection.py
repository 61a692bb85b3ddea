"""Asset `inspected` and the sensor that starts it: images in data/inspect of lines that no `watch` looks after.

A run has no partition, because a line's runs wait for each other and scoring must not wait for a training. The sensor
also has drift measured when enough images of a line were scored, whoever scored them.
"""

import hashlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field

from llbnad.errors import DataError, LlbnadError
from orchestration.assets.check_texts import check_spec
from orchestration.assets.checked_asset import checked_asset
from orchestration.assets.command import run_command
from orchestration.assets.drift_asset import drift_job
from orchestration.assets.partitions import PARTITIONS
from orchestration.assets.pictures import picture
from orchestration.assets.retraining import FINISHED, run_in_progress
from orchestration.inspection.chart import PICTURE
from orchestration.inspection.ledger import count_in, messages_wait_in, seen_in
from orchestration.inspection.watching import is_watched
from orchestration.line.inbox import FileMark, lines, look, untouched
from orchestration.pipeline.params import ArrivalSettings, Params, load_params
from orchestration.pipeline.paths import INSPECT, PARAMS, inspected_dir, stage_dir
from orchestration.pipeline.pipes import CONTROL_CHART

INSPECTED, LINE_TAG = "inspected", "llbnad/inspect"
LOOK_SECONDS = 5
UNREADABLE = (DataError, sqlite3.Error)  # errors of a record of scored images


class InspectionConfig(dg.Config):
    """Run configuration of `inspected`."""

    line: str = Field(
        "",
        description="Required: production line whose images in data/inspect are scored. Nothing is scored without it",
    )


def inspected_asset(root: Path) -> dg.AssetsDefinition:
    """Return the asset `inspected` of the repository at `root`."""

    spec = dg.AssetSpec(
        INSPECTED,
        group_name="serving",
        kinds={"mlflow", "torch"},
        description="New images of a line's data/inspect, scored by its champion; the share of defects per hour",
    )

    @checked_asset(spec, [check_spec(CONTROL_CHART, INSPECTED, None)])
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
        jobs=[inspect_job, drift_job],
        minimum_interval_seconds=max(LOOK_SECONDS, math.ceil(settings.stable_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches data/inspect; new images of a line that no `watch` looks after are scored, and drift of "
        "all lines is measured each time that enough images were scored",
    )
    def inspections(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            params = load_params(root / PARAMS)
        except LlbnadError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        found = lines(root, INSPECT)
        requests = []
        reasons = [
            f"inspection.{line} of {PARAMS}: there is no folder {INSPECT / line}"
            for line in params.inspection
            if line not in found
        ]
        for line, bad_name in found.items():
            try:
                state = None if bad_name else _state(root, line, params)
            except UNREADABLE as error:  # one line's damaged record stops no other line
                bad_name, state = str(error), None
                context.log.warning(f"{line}: {error}")
            if reason := bad_name or _must_wait(root, context.instance, line) or (None if state else "no new images"):
                reasons.append(f"{line}: {reason}")
                continue
            config = dg.RunConfig(ops={INSPECTED: InspectionConfig(line=line)})
            requests.append(
                dg.RunRequest(run_key=state, run_config=config, tags={LINE_TAG: line}, job_name=inspect_job.name)
            )
        before = json.loads(context.cursor or "{}")
        asked = _asked_for_drift(root, context.instance, params, before)
        for line, part in asked.items():
            if part > before.get(line, 0):
                requests.append(dg.RunRequest(partition_key=line, job_name=drift_job.name))
        why_none = None if requests else "; ".join(reasons) or f"no folder in {INSPECT}"
        return dg.SensorResult(run_requests=requests, skip_reason=why_none, cursor=json.dumps(asked, sort_keys=True))

    return inspections


def _asked_for_drift(
    root: Path, instance: dg.DagsterInstance, params: Params, before: Mapping[str, int]
) -> dict[str, int]:
    """Return by line how many times enough images were scored for a look at drift, as far as it can be asked for now.

    Args:
        root: root of the repository.
        instance: Dagster's instance.
        params: the settings.
        before: what an earlier look returned.
    """
    asked = dict(before)
    for line in params.scenarios:
        enough = params.inspection_of(line).drift_images
        try:
            part = count_in(root / inspected_dir(line)) // enough if enough else 0
        except UNREADABLE:  # the sensor says so of every line with a folder
            continue
        if part < before.get(line, 0):
            asked[line] = part  # somebody has removed the results
        elif part > before.get(line, 0) and _can_compare(root, instance, line):
            asked[line] = part
    return asked


def _must_wait(root: Path, instance: dg.DagsterInstance, line: str) -> str | None:
    if is_watched(root / inspected_dir(line)):
        return "a `watch` looks after it"
    wanted = dg.RunsFilter(tags={LINE_TAG: line}, statuses=list(set(dg.DagsterRunStatus) - FINISHED))
    return next((f"run {run.run_id[:8]} is at work" for run in instance.get_runs(wanted, limit=1)), None)


def _can_compare(root: Path, instance: dg.DagsterInstance, line: str) -> bool:
    trained = (root / stage_dir("purified", line)).exists() and instance.has_dynamic_partition(PARTITIONS, line)
    return trained and run_in_progress(instance, line) is None


def _state(root: Path, line: str, params: Params) -> str | None:
    """Return a run key for the complete files without a row, or for messages that wait; None if there are none.

    What a run left, because the line has no champion for instance, is asked for again each hour, and messages that the
    webhook did not take each minute at most.
    """
    now, seen = look(root / INSPECT / line), seen_in(root / inspected_dir(line))
    marks = {path: FileMark(found.st_ino, found.st_size, found.st_mtime_ns) for path, found in now.items()}
    new = {path: now[path] for path, mark in marks.items() if seen.get(path) != mark}
    complete = sorted(untouched(new, params.arrival.stable_seconds))
    if not complete and params.inspection_of(line).webhook and messages_wait_in(root / inspected_dir(line)):
        return f"{line}-messages-{int(time.time() // 60)}"
    if not complete:
        return None
    digest = hashlib.sha256()
    for path in complete:
        digest.update(os.fsencode(path) + repr(tuple(marks[path])).encode())
    return f"{line}-{digest.hexdigest()[:16]}-{int(time.time() // 3600)}"
