"""The nightly job `verify`: the content of all outputs and of DVC's cache, compared with the recorded hashes."""

from pathlib import Path

import dagster as dg

from orchestration.assets.failure import failing
from orchestration.assets.machines import AT_HOME
from orchestration.pipeline.verify import refuse_damage

CRON = "0 4 * * *"  # UTC; after the retraining that `arrival.cron` usually starts at two


def verification(root: Path) -> tuple[dg.JobDefinition, dg.ScheduleDefinition]:
    """Return the job `verify` of the repository at `root`, and the schedule that starts it every night."""

    @dg.op(name="compare_with_recorded_hashes", description="Fails with the list of damaged files and the way back")
    def compare(context: dg.OpExecutionContext) -> None:
        with failing(context):
            refuse_damage(root)
        context.log.info("outputs and cache hold the bytes that were recorded")

    @dg.job(
        name="verify",
        executor_def=dg.in_process_executor,
        tags=AT_HOME,
        description="Compares all outputs and DVC's cache with the recorded hashes, every night at 4:00 UTC",
    )
    def verify() -> None:
        compare()

    schedule = dg.ScheduleDefinition(
        name="nightly_verify",
        job=verify,
        cron_schedule=CRON,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Looks for damaged outputs",
    )
    return verify, schedule
