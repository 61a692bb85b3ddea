"""Lost runs: their process has gone without a report, because the machine lost power or somebody killed all of Dagster.

Dagster still calls such a run started. A line with a run in progress is not retrained, so it would wait for ever.
Dagster's own run monitoring (.dagster/dagster.yaml) ends the runs that were about to start or to be cancelled.
"""

import time

import dagster as dg
import psutil

import orchestration
from orchestration.assets.machines import end_runs_of_lost_workers, is_celery
from orchestration.pipeline.left_behind import is_zombie

TOLERANCE = 5  # seconds; a process starts before it reports, but somebody may set the clock meanwhile


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed that are started and have no process any more, and return their ids."""
    if is_celery(instance.run_launcher):
        return end_runs_of_lost_workers(instance)
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):  # that of Kubernetes watches its own runs
        return []
    return [
        run.run_id
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        if _is_lost(instance, run)
    ]


def _is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    told = [(event.get_dagster_event().engine_event_data.metadata.get("pid"), event.timestamp) for event in events]
    processes = [(int(str(pid.value)), moment) for pid, moment in told if pid is not None]
    if not processes or any(was_there(pid, moment) for pid, moment in processes):
        return False
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.status != dg.DagsterRunStatus.STARTED:  # the run has ended regularly meanwhile
        return False
    instance.report_run_failed(
        run, "Its process is gone: the machine or Dagster was stopped while it ran. Run it again"
    )
    return True


def was_there(pid: int, moment: float) -> bool:
    """Return whether process `pid` is running and was running at `moment`, in seconds since 1970.

    A process that started later only has the same number. One that has ended and still has a number, since nobody asked
    for its exit status, is not running. When the clock is set forward, the system moves the start of every process by
    as much, and the moment stays as it was written down; so by as much may a process seem too young.
    """
    try:
        started = psutil.Process(pid).create_time()
        return not is_zombie(pid) and bool(started <= moment + TOLERANCE + _set_forward())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # the process of another user


def _set_forward() -> float:
    """Return the seconds by which the clock was set forward since this process started, 0 if it was not."""
    shown = time.time() - orchestration.STARTED
    return max(0.0, shown - (time.monotonic() - orchestration.STARTED_MONOTONIC))
