"""Assets that run a command: Dagster shows what the command reports through Dagster Pipes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from orchestration.assets import command
from orchestration.assets.command import run_command
from orchestration.assets.failure import NO_RETRY
from tests.campaign.chain import processes_in
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import wait_for

REPORT = """\
import sys
from llbnad.errors import ConfigError
from orchestration.pipeline import pipes
with pipes.connection():
    print("working", flush=True)
    if sys.argv[1] == "breaks":
        raise OSError("no space left")
    if sys.argv[1] == "refuses":
        raise ConfigError("no such line")
    rows = [("a", 1, 0.5, True, None), ("b", 2, float("nan"), False, "x")]
    pipes.report({"count": 3, "rows": pipes.table(("text", "int", "float", "bool", "some"), rows)}, "abc",
                 [pipes.Check("sound", False, "it rattles", "WARN", {"noise": 7})])
    print("done")
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def tags():
    """The tags of the run that `materialise` made."""
    return {}


@pytest.fixture
def materialise(tmp_path, monkeypatch, tags):
    """Materialise an asset whose command is REPORT; the run's result."""
    (tmp_path / "report.py").write_text(REPORT)
    monkeypatch.setattr(command, "COMMAND", (sys.executable, "report.py"))

    @dg.asset(check_specs=[dg.AssetCheckSpec("sound", asset="made")])
    def made(context: dg.AssetExecutionContext, config: dict) -> dg.MaterializeResult:
        return run_command(context, tmp_path, [config["argument"]], (0, 3), lambda: {"seen": "on disk"})

    def run(argument):
        config = {"ops": {"made": {"config": {"argument": argument}}}}
        with dg.instance_for_test() as instance:
            result = dg.materialize([made], instance=instance, run_config=config, raise_on_error=False)
            tags.update(instance.get_run_by_id(result.run_id).tags)
            return result

    return run


@pytest.mark.parametrize("code", ["0", "3"])
def test_what_a_command_reports_is_what_dagster_shows(materialise, code):
    result = materialise(code)
    assert result.success
    (event,) = result.asset_materializations_for_node("made")
    assert event.tags["dagster/data_version"] == "abc"
    shown = event.metadata
    assert (shown["count"].value, shown["seen"].value) == (3, "on disk")
    rows = shown["rows"]
    assert {column.name: column.type for column in rows.schema.columns} == {
        "text": "string", "int": "int", "float": "float", "bool": "bool", "some": "string"
    }  # fmt: skip
    assert [dict(record.data) for record in rows.records] == [
        {"text": "a", "int": 1, "float": 0.5, "bool": True, "some": None},
        {"text": "b", "int": 2, "float": None, "bool": False, "some": "x"},
    ]
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity, check.description) == (False, dg.AssetCheckSeverity.WARN, "it rattles")
    assert {name: value.value for name, value in check.metadata.items()} == {"noise": 7, "seen": "on disk"}


@pytest.mark.parametrize(
    ("argument", "message", "again"),
    [("1", "done", True), ("breaks", "OSError: no space left", True), ("refuses", "ConfigError: no such line", False)],
)
def test_a_command_that_fails_counts_for_nothing(materialise, tags, argument, message, again):
    result = materialise(argument)
    assert (NO_RETRY.items() <= tags.items()) is not again
    assert not result.success and not result.asset_materializations_for_node("made")
    (failure,) = result.get_step_failure_events()
    assert message in failure.step_failure_data.error.to_string() + str(failure.step_failure_data.user_failure_data)


CANCELLED = """\
import sys
import dagster as dg
from pathlib import Path
from orchestration.assets import command
command.COMMAND = ("sh", "-c")
@dg.asset
def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return command.run_command(context, Path(sys.argv[1]), ["sleep 600 & sleep 600; true"])
dg.materialize([made])
"""


def test_cancelling_ends_everything_the_command_started(tmp_path, cold_programs):
    work = tmp_path / "work"
    work.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-c", CANCELLED, str(work)], cwd=REPOSITORY, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert wait_for(lambda: len(processes_in(work.resolve())) >= 3)
    os.kill(run.pid, signal.SIGINT)  # what cancelling a run does to its process
    run.wait(60)
    assert wait_for(lambda: not processes_in(work.resolve()), 10)


def test_from_a_terminal_nothing_is_reported(tmp_path):
    (tmp_path / "report.py").write_text(REPORT)
    done = subprocess.run([sys.executable, "report.py", "0"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "working\ndone\n", "")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["report.py"]
