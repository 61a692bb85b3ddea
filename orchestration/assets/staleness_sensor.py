"""The sensor `staleness`: DVC's word on every stage, as observations and checks of the assets `changes/STAGE_changes`.

A look costs the `stat` of the files that the records in dvc.lock name. Only scenarios for which one of these, the code,
params.yaml or the record differs from the last look are asked about with `dvc status`; what a plain `dvc repro` has
made meanwhile is told to Dagster first.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from llbnad.errors import LlbnadError
from orchestration.assets.backfill import Backfill
from orchestration.assets.changes import Changes, versions
from orchestration.assets.changes_checks import report, results
from orchestration.assets.partitions import Pattern, stages_of
from orchestration.assets.retraining import run_in_progress
from orchestration.pipeline import code, dvc, settings
from orchestration.pipeline.busy import BusyError
from orchestration.pipeline.import_graph import PACKAGES
from orchestration.pipeline.left_behind import dvc_processes
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.staleness import in_words, states, why_behind
from orchestration.slices.state import State

LOOK_SECONDS = 30
TELL_SECONDS = 20.0  # a tick begins no further scenario after this time; Dagster ends a sensor after 60 s
WAITING = "--wait-for-lock"  # a dvc without it gives up if another one holds the lock for 3 s


@dataclass(frozen=True)
class Seen:
    """The last look at a scenario."""

    digest: str = ""  # of all that decides on its stages; empty: not looked at yet
    words: str = "not looked at yet"
    behind: dict[str, str] = field(default_factory=dict)  # why stages are not up to date, by asset name


def staleness_sensor(root: Path, found: Mapping[str, Pattern]) -> dg.SensorDefinition:
    """Return the sensor `staleness` of the repository at `root`.

    Args:
        root: root of the repository.
        found: the stages of any scenario by asset name, causes first.
    """

    @dg.sensor(
        name="staleness",
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells which stages DVC would run again, and why, after an edit of params.yaml, code or data. Each "
        "tick names the scenarios: click the blue number in its column Result",
    )
    def staleness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            params = load_params(root / PARAMS)
            remembered = _remembered(context.cursor)
            seen, waiting = look(context.instance, root, found, params, remembered)
        except BusyError:
            again = "another process works on the same files, such as `make run`: this sensor looks again by itself"
            return dg.SensorResult(skip_reason=again, cursor=context.cursor)
        except LlbnadError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        said = "; ".join(f"{scenario}: {one.words}{waiting.get(scenario, '')}" for scenario, one in seen.items())
        cursor = json.dumps({scenario: asdict(one) for scenario, one in seen.items()})
        return dg.SensorResult(skip_reason=said or f"{PARAMS} has no scenario", cursor=cursor)

    return staleness


def look(
    instance: dg.DagsterInstance,
    root: Path,
    found: Mapping[str, Pattern],
    params: Params,
    remembered: Mapping[str, Seen],
) -> tuple[dict[str, Seen], dict[str, str]]:
    """Ask DVC about the scenarios that differ from the last look, and tell Dagster.

    Args:
        instance: Dagster's instance.
        root: root of the repository.
        found: the stages of any scenario by asset name.
        params: content of params.yaml.
        remembered: the first of what the last look returned.

    Returns:
        The last look at each scenario; and what to add for a scenario that has changed and is looked at later, with the
        reason.

    Raises:
        DvcError: DVC refuses the pipeline.
        BusyError: another process kept the files busy for too long.
    """
    now = _digests(root, params)
    seen = {scenario: remembered.get(scenario, Seen()) for scenario in params.scenarios}
    changed = [scenario for scenario, digest in now.items() if digest != seen[scenario].digest]
    in_the_way = "a `dvc` that somebody started is at work" if changed and _is_in_the_way(root) else None
    reasons = {scenario: in_the_way or run_in_progress(instance, scenario) for scenario in changed}
    waiting = {scenario: f", looked at later: {why}" for scenario, why in reasons.items() if why}
    todo = [scenario for scenario in changed if scenario not in waiting]
    if not todo:
        return seen, waiting
    all_states, lock = states(root, params, todo), dvc.read_lock(root)
    backfill, deadline = Backfill(instance, root, found), time.monotonic() + TELL_SECONDS
    for scenario in todo:
        if time.monotonic() > deadline:
            waiting[scenario] = ", looked at later: enough for one look"
            continue
        stages, by_stage = stages_of(found, params, scenario), all_states[scenario]
        own = {asset: by_stage[stage] for asset, stage in stages.items() if stage in by_stage}
        fresh = [asset for asset, state in own.items() if state.freshness == "up to date"]
        backfill.record(scenario, stages, lock, fresh)
        known, changes = versions(lock, stages), Changes(instance, found, scenario)
        for asset, state in own.items():
            changes.observe_state(asset, state, known.get(asset, ""))
        words = in_words({stages[asset]: state for asset, state in own.items()})
        seen[scenario] = Seen(now[scenario], words, why_behind(own))
    _tell_checks(instance, found, remembered, seen)
    return seen, waiting


def _remembered(cursor: str | None) -> dict[str, Seen]:
    """Return the last look at each scenario; a cursor of an earlier release counts for none."""
    content = json.loads(cursor) if cursor else {}
    return {scenario: Seen(**one) for scenario, one in content.items() if isinstance(one, dict)}


def _tell_checks(
    instance: dg.DagsterInstance, found: Mapping[str, Pattern], before: Mapping[str, Seen], now: Mapping[str, Seen]
) -> None:
    """Report the checks `up_to_date` whose result is another than after the last look."""
    then, new = ({name: one.behind for name, one in seen.items() if one.digest} for seen in (before, now))
    assets = [asset for asset in found if not then or _of(asset, then) != _of(asset, new)]
    report(instance, results(assets, new))


def _of(asset: str, scenarios: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {scenario: why[asset] for scenario, why in scenarios.items() if asset in why}


def _digests(root: Path, params: Params) -> dict[str, str]:
    """Return, by scenario, a digest of all that decides on the state of its stages."""
    state = State(root, params)
    records = [state.blocks.get(stage) for stage in (code.STAGE, settings.SPLIT)]
    shared: list[Any] = [(root / PARAMS).read_text(), *records]
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            known = file.stat()
            shared.append([file.as_posix(), known.st_ino, known.st_size, known.st_mtime_ns])
    return {
        scenario: hashlib.sha256(
            json.dumps([shared, settings.plugin_versions(own), state.fingerprint(scenario)]).encode()
        ).hexdigest()
        for scenario, own in params.scenarios.items()
    }


def _is_in_the_way(root: Path) -> bool:
    """Return whether a `dvc` of a person is at work here, which would give up if it met the lock of `dvc status`."""
    for pid in dvc_processes(root):
        try:
            if WAITING not in psutil.Process(pid).cmdline():
                return True
        except psutil.Error:
            continue  # it ended meanwhile
    return False
