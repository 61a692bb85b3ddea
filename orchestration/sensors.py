"""The sensor over all inboxes: enough complete files of a line start its job `retrain`.

Files are known by inode, size and modification time; only when a run is asked for are contents read, and then of a few
files: the run key is made of them. While a line has a run in progress its inbox is not looked at.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llbnad.config import Arrival, load_params
from llbnad.errors import LlbnadError
from llbnad.files import file_digest
from orchestration.arrivals import last_batch
from orchestration.inbox import Mark, lines, look
from orchestration.partitions import sync
from orchestration.paths import INCOMING, PARAMS
from orchestration.register import conflict
from orchestration.retraining import known_lines, retrain, run_in_progress

MARK_DIGITS = 16
HASHED_FILES, HASHED_BYTES = 200, 2**28  # contents in a run key; the other files enter it by their marks


@dataclass(frozen=True)
class Verdict:
    """What one evaluation found out about one line."""

    memory: dict[str, str]  # for the next evaluation
    reason: str = ""  # why no run is asked for
    run_key: str | None = None


def arrival_sensor(root: Path, settings: Arrival) -> dg.SensorDefinition:
    """Sensor `arrivals` of the repository at `root`."""

    @dg.sensor(
        name="arrivals",
        job=retrain,
        minimum_interval_seconds=max(1, math.ceil(settings.stable_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Watches data/incoming; a line with enough new, complete files is retrained",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            params = load_params(root / PARAMS)
        except LlbnadError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        sync(context.instance, [*params.scenarios, *known_lines(root, params)])

        def must_wait(line: str) -> str | None:
            return conflict(params, line) or run_in_progress(context.instance, line)

        verdicts = evaluate(root, params.arrival, context.cursor, must_wait)
        requests = [
            dg.RunRequest(run_key=verdict.run_key, partition_key=line)
            for line, verdict in verdicts.items()
            if verdict.run_key
        ]
        reasons = [f"{line}: {verdict.reason}" for line, verdict in verdicts.items() if verdict.reason]
        if requests:
            for reason in reasons:
                context.log.info(reason)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(reasons) or f"no folder in {INCOMING}",
            cursor=json.dumps({line: verdict.memory for line, verdict in verdicts.items() if verdict.memory}),
        )

    return arrivals


def evaluate(
    root: Path, settings: Arrival, cursor: str | None, must_wait: Callable[[str], str | None]
) -> dict[str, Verdict]:
    """Look at every inbox once.

    Args:
        root: the repository.
        settings: when files are complete and how many are enough.
        cursor: what the last evaluation remembered.
        must_wait: says why a line cannot be retrained now, or None.
    """
    memories: Mapping[str, dict[str, str]] = json.loads(cursor) if cursor else {}
    verdicts = {}
    for line, bad_name in lines(root).items():
        memory = memories.get(line, {})
        if bad_name:
            verdicts[line] = Verdict({}, bad_name)
        elif reason := must_wait(line):
            verdicts[line] = Verdict(memory, reason)
        else:
            verdicts[line] = _look_at(root, line, settings, memory)
    return verdicts


def _look_at(root: Path, line: str, settings: Arrival, memory: Mapping[str, str]) -> Verdict:
    inbox = root / INCOMING / line
    now = look(inbox)
    if not now:
        return Verdict({}, "no new files")
    marks = {path: _mark_digest(path, seen.mark) for path, seen in now.items()}
    before = memory.get("seen", "")
    known = {before[start : start + MARK_DIGITS] for start in range(0, len(before), MARK_DIGITS)}
    limit = time.time() - settings.stable_seconds
    complete = sorted(path for path, seen in now.items() if marks[path] in known and seen.changed <= limit)
    listing = hashlib.sha256("".join(marks[path] for path in complete).encode()).hexdigest()[:MARK_DIGITS]
    asked = memory.get("asked", "")
    remembered = {"seen": "".join(sorted(marks.values())), "asked": asked}
    others = f"; {len(now) - len(complete)} files are not complete yet" if len(now) > len(complete) else ""
    if len(complete) < settings.min_new_images:
        return Verdict(remembered, f"{len(complete)} of the {settings.min_new_images} new files it takes{others}")
    if listing == asked:
        waits = "the run asked for did not take them in: see why it failed; the schedule tries again"
        return Verdict(remembered, f"{len(complete)} files wait, but {waits}{others}")
    content = _content_digest(inbox, complete, marks)
    key = f"{line}-{last_batch(root, line) + 1}-{content}"
    return Verdict({**remembered, "asked": listing}, run_key=key)


def _content_digest(inbox: Path, paths: list[str], marks: Mapping[str, str]) -> str:
    digest, read = hashlib.sha256(), 0
    for number, path in enumerate(paths):
        try:
            size = (inbox / path).stat().st_size
            if number < HASHED_FILES and read + size <= HASHED_BYTES:
                digest.update(file_digest(inbox / path).encode())
                read += size
                continue
        except OSError:
            pass  # gone or unreadable: its mark will do
        digest.update(marks[path].encode())
    return digest.hexdigest()[:MARK_DIGITS]


def _mark_digest(path: str, mark: Mark) -> str:
    text = f"{path}/{mark.inode}/{mark.size}/{mark.mtime_ns}".encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=MARK_DIGITS // 2).hexdigest()
