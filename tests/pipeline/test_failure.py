"""How a step ends with one of our errors, and whether Dagster starts its run again where that is switched on."""

import dagster as dg
import pytest

from llbnad.errors import ConfigError, DataError
from orchestration.assets.failure import Stopped, failing
from orchestration.pipeline.dvc import DvcError
from orchestration.pipeline.repro import StageError
from orchestration.slices.refs import NoDataError, OvertakenError, SliceError


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (DataError("no image is usable"), "false"),
        (ConfigError("alpha is an unknown key"), "false"),
        (StageError("raw@a", "stage raw@a failed", refused=True), "false"),
        (StageError("raw@a", "stage raw@a failed"), "true"),
        (DvcError("the remote does not answer"), "true"),
        (SliceError("another process of this machine works on a"), "true"),
        (NoDataError("workers cannot get datasets.a"), "false"),
        (OvertakenError("another worker has taken a over"), "false"),
    ],
)
def test_a_run_that_would_fail_again_is_not_started_again(error, again):
    @dg.asset
    def picky(context: dg.AssetExecutionContext) -> None:
        with failing(context):
            raise error

    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True, "max_retries": 2}}) as instance:
        result = dg.materialize([picky], instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None and run.tags["dagster/will_retry"] == again
        (event,) = [one for one in result.all_events if one.is_step_failure]
        assert event.step_failure_data.error.cls_name == Stopped.__name__
        assert str(error) in event.step_failure_data.error.cause.message
