"""Other machines: whether there are any, and the runs that Celery's launcher started on one that is gone.

Dagster would call such runs started for ever: the launcher asks Celery's results, where a task that began stays
"started" when its worker dies. So the workers are asked instead: a run whose task no living worker has, at least twice
in a row and for half a minute, is marked as failed, and Dagster's run retries start it on another machine. Once is not
enough, since a task is nobody's for a moment before it begins, and a busy worker may answer late. What was found the
first time is a tag of the run, so that it outlives the process that asked.
"""

import time
from typing import TYPE_CHECKING, Any

import dagster as dg

from orchestration.pipeline.cluster import HOME_QUEUE

if TYPE_CHECKING:
    from dagster_celery.launcher import CeleryRunLauncher

CELERY, KUBERNETES = "CeleryRunLauncher", "K8sRunLauncher"  # classes of packages that need not be installed
AT_HOME = {"dagster-celery/queue": HOME_QUEUE}  # tags of jobs that a worker at home executes
TASK_TAG = "dagster-celery/task_id"  # written by the launcher
MISSED_TAG = "llbnad/not_found"  # the task and seconds since 1970, or empty after the task was found again
ANSWER_SECONDS = 5.0  # workers have so long to answer; asking takes as long
APART_SECONDS = 30.0  # at least, from the first time that no worker had a run: a busy one may answer late


def is_celery(launcher: object) -> bool:
    """Return whether runs are started by Celery. Its package need not be installed."""
    return CELERY in _kinds(launcher)


def has_several_machines(instance: dg.DagsterInstance) -> bool:
    """Return whether runs are started on other machines than this one, by Celery or Kubernetes."""
    return bool({CELERY, KUBERNETES} & _kinds(instance.run_launcher))


def _kinds(launcher: object) -> set[str]:
    return {kind.__name__ for kind in type(launcher).__mro__}


def end_runs_of_lost_workers(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose task no living worker has had for a while, and return their ids.

    Raises:
        Exception: the broker does not answer, by an error of its own kind. No run is marked then.
    """
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    started = [run for run in instance.get_runs(filters) if TASK_TAG in run.tags]
    if not started:
        return []
    held = _held_tasks(instance.run_launcher, [run.tags[TASK_TAG] for run in started])
    return [run.run_id for run in started if _is_lost(instance, run, held)]


def _held_tasks(launcher: "CeleryRunLauncher", tasks: list[str]) -> set[str]:
    """Return those of `tasks` that a living worker executes or has in hand."""
    inspect = launcher.celery.control.inspect(timeout=ANSWER_SECONDS)
    answers: dict[str, dict[str, Any]] = inspect.query_task(*tasks) or {}  # by worker; None if no worker answers
    return {task for answer in answers.values() for task in answer}


def _is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun, held: set[str]) -> bool:
    task, (missed_task, _, missed) = run.tags[TASK_TAG], run.tags.get(MISSED_TAG, "").partition(" ")
    if task in held:
        if missed:
            instance.add_run_tags(run.run_id, {MISSED_TAG: ""})
        return False
    if missed_task != task:  # a run that is tried again has the tags of the one before
        instance.add_run_tags(run.run_id, {MISSED_TAG: f"{task} {time.time()}"})
        return False
    if abs(time.time() - float(missed)) < APART_SECONDS:
        return False
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.status != dg.DagsterRunStatus.STARTED:  # the run has ended regularly meanwhile
        return False
    instance.report_run_failed(run, "Its worker is gone: no living Celery worker has the run's task. It is tried again")
    return True
