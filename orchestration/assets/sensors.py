"""The sensor of all inboxes: enough complete files of a line start the job `retrain`.

A waiting file costs one `stat` per look, a file that is taken in costs nothing. Contents are read only for the key of a
run, when a run is requested, and only of the first files. The inbox of a line with a run in progress is not looked at.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llbnad.errors import LlbnadError
from llbnad.utils.files import file_digest
from orchestration.assets.lost_runs import end_lost_runs
from orchestration.assets.partitions import not_known
from orchestration.assets.retraining import follow_params, run_in_progress
from orchestration.line.arrivals import last_batch
from orchestration.line.inbox import lines, look, untouched
from orchestration.line.params_entry import conflict
from orchestration.pipeline.params import ArrivalSettings, load_params
from orchestration.pipeline.paths import INCOMING, PARAMS

DIGITS = 16  # hex digits of a hash in a run key
HASHED_FILES, HASHED_BYTES = 200, 2**28  # limit on contents in a run key; further files enter it by size and time


@dataclass(frozen=True)
class InboxDecision:
    """The decision on one line: a run key, or the reason why no run is requested."""

    reason: str | None  # why no run is requested
    asked: str = ""  # state of the inbox at the last request, for the next evaluation
    run_key: str | None = None


def arrival_sensor(root: Path, settings: ArrivalSettings, job_name: str) -> dg.SensorDefinition:
    """Return the sensor `arrivals` of the repository at `root`, which starts this job for a line."""

    @dg.sensor(
        name="arrivals",
        job_name=job_name,
        minimum_interval_seconds=max(1, math.ceil(settings.stable_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches data/incoming; a line with enough new, complete files is retrained",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        end_lost_runs(context.instance)
        try:
            params = load_params(root / PARAMS)
        except LlbnadError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        gone = follow_params(context.instance, root, params)

        def must_wait(line: str) -> str | None:
            return conflict(params, line) or run_in_progress(context.instance, line)

        decisions = evaluate(root, params.arrival, context.cursor, must_wait)
        requests = [
            dg.RunRequest(run_key=decision.run_key, partition_key=line)
            for line, decision in decisions.items()
            if decision.run_key
        ]
        reasons = [f"{line}: {decision.reason}" for line, decision in decisions.items() if decision.reason]
        reasons += [f"{not_known(gone)}; the partition was taken away"] if gone else []
        if requests:
            for reason in reasons:
                context.log.info(reason)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(reasons) or f"no folder in {INCOMING}",
            cursor=json.dumps({line: decision.asked for line, decision in decisions.items() if decision.asked}),
        )

    return arrivals


def evaluate(
    root: Path, settings: ArrivalSettings, cursor: str | None, must_wait: Callable[[str], str | None]
) -> dict[str, InboxDecision]:
    """Look at every inbox once.

    Args:
        root: root of the repository.
        settings: when files are complete, and how many are enough.
        cursor: cursor of the last evaluation.
        must_wait: returns why a line cannot be retrained now, or None.
    """
    remembered: dict[str, str] = json.loads(cursor) if cursor else {}
    decisions = {}
    for line, bad_name in lines(root).items():
        asked = remembered.get(line, "")
        if reason := bad_name or must_wait(line):
            decisions[line] = InboxDecision(reason, asked)
        else:
            decisions[line] = _look_at(root, line, settings, asked)
    return decisions


def _look_at(root: Path, line: str, settings: ArrivalSettings, asked: str) -> InboxDecision:
    now = look(root / INCOMING / line)
    if not now:
        return InboxDecision("no new files")
    # one look is enough to request a run; the ingest looks twice before it moves a file
    complete = untouched(now, settings.stable_seconds)
    others = f"; {len(now) - len(complete)} files are not complete yet" if len(now) > len(complete) else ""
    if len(complete) < settings.min_new_images:
        return InboxDecision(f"{len(complete)} of the {settings.min_new_images} new files it takes{others}", asked)
    # every change of an inbox changes the number of files or the time when the last file was touched
    state = f"{len(complete)} files, {max(now[path].st_ctime_ns for path in complete)}"
    if state == asked:
        waits = "the run asked for did not take them in: see its log; the schedule tries again"
        return InboxDecision(f"{len(complete)} files wait, but {waits}{others}", asked)
    content = _content_digest(root / INCOMING / line, {path: now[path] for path in sorted(complete)})
    return InboxDecision(None, state, f"{line}-{last_batch(root, line) + 1}-{content}")


def _content_digest(inbox: Path, files: Mapping[str, os.stat_result]) -> str:
    """Hash the contents of the first files, and the sizes and times of the others."""
    digest, read = hashlib.sha256(), 0
    for number, (path, seen) in enumerate(files.items()):
        if number < HASHED_FILES and read + seen.st_size <= HASHED_BYTES:
            try:
                digest.update(file_digest(inbox / path).encode())
                read += seen.st_size
                continue
            except OSError:
                pass  # the file has gone or is unreadable
        digest.update(repr((path, seen.st_size, seen.st_mtime_ns)).encode())
    return digest.hexdigest()[:DIGITS]
