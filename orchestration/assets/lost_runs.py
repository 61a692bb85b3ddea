"""Runs whose process has gone without a word: the machine lost power, or somebody killed all of Dagster.

Dagster goes on calling them started, and a line with a run in progress is not retrained: it would wait for ever. Those
that were only about to start, or to be cancelled, are ended by Dagster's own run monitoring (.dagster/dagster.yaml).
"""

import dagster as dg
import psutil

TOLERANCE = 5  # seconds: a process has begun before it says so, but clocks are set meanwhile


def end_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed that are started and have no process any more, and return their ids."""
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):  # they run elsewhere, and it sees to them
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
    if now is None or now.status != dg.DagsterRunStatus.STARTED:  # it has just ended as it should
        return False
    instance.report_run_failed(
        run, "Its process is gone: the machine or Dagster was stopped while it ran. Run it again"
    )
    return True


def was_there(pid: int, moment: float) -> bool:
    """Whether process `pid` is running and was at `moment` (seconds since 1970): its number may be another's by now."""
    try:
        return bool(psutil.Process(pid).create_time() <= moment + TOLERANCE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # somebody else's, but there
