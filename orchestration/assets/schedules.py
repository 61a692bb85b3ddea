"""The nightly schedule: it retrains every line with enough images that no training has seen, whatever the sensor did.

A run that failed is tried again this way, and images that were taken in by hand, or one by one, are trained on.
"""

from pathlib import Path

import dagster as dg

from llbnad.errors import LlbnadError
from orchestration.assets.lost_runs import end_lost_runs
from orchestration.assets.retraining import follow_params, run_in_progress
from orchestration.line.lines import known_lines, new_images
from orchestration.pipeline.params import ArrivalSettings, load_params
from orchestration.pipeline.paths import PARAMS


def retraining_schedule(root: Path, settings: ArrivalSettings, job_name: str) -> dg.ScheduleDefinition:
    """Return the schedule `nightly`, which starts this job for lines. Its time is `arrival.cron` in params.yaml."""

    @dg.schedule(
        name="nightly",
        cron_schedule=settings.cron,
        job_name=job_name,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Retrains the lines that have enough new images",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        try:
            params = load_params(root / PARAMS)
        except LlbnadError as error:
            return dg.SkipReason(str(error))
        found = known_lines(root, params)
        follow_params(context.instance, root, params)
        end_lost_runs(context.instance)
        requests, reasons = [], []
        for line in found:
            new = new_images(root, line)
            if reason := run_in_progress(context.instance, line):
                reasons.append(f"{line}: {reason}")
            elif new < params.arrival.min_new_images:
                reasons.append(f"{line}: {new} of the {params.arrival.min_new_images} new images it takes")
            else:
                key = f"{line}-{context.scheduled_execution_time.isoformat()}"
                requests.append(dg.RunRequest(run_key=key, partition_key=line))
        if requests:
            for reason in reasons:
                context.log.info(reason)
        return requests or dg.SkipReason("; ".join(reasons) or "there is no production line")

    return nightly
