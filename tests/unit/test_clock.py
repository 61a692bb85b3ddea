"""A clock that was set back: nothing waits for the hour to pass, and nothing that changes passes unnoticed."""

import subprocess
import time
from types import SimpleNamespace

import pytest

import orchestration
from orchestration.assets.lost_runs import was_there
from orchestration.line import inbox
from orchestration.pipeline import stage
from orchestration.pipeline.code import ChangedError

HOUR = 3600


@pytest.fixture
def file(tmp_path):
    """A file that was touched just now."""
    path = tmp_path / "a.png"
    path.touch()
    return path


@pytest.fixture
def set_clock(monkeypatch):
    """Set the clock that our modules see; `started` is when the process began, in seconds from now."""

    def put(seconds, started=0.0):
        clock = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=time.monotonic, sleep=time.sleep)
        monkeypatch.setattr(inbox, "time", clock)
        monkeypatch.setattr(stage, "time", clock)
        monkeypatch.setattr(orchestration, "STARTED", time.time() + started)
        monkeypatch.setattr(orchestration, "STARTED_MONOTONIC", time.monotonic())

    return put


@pytest.mark.parametrize(
    ("clock", "stable", "taken"),
    [(0, 0, True), (0, 10, False), (20, 10, True), (-HOUR, 10, True), (-30, 10, False), (-HOUR, 7200, True)],
    ids=["now", "too new", "old", "before the clock was set back", "a server's clock", "more patience"],
)
def test_an_inbox_takes_what_was_touched_in_the_future(file, set_clock, clock, stable, taken):
    set_clock(clock)
    assert bool(inbox.untouched(inbox.look(file.parent), stable)) == taken


def test_files_from_before_the_clock_was_set_back_are_no_changes(file, set_clock):
    set_clock(-HOUR, started=-HOUR)  # the stage began after the clock was set
    stage.refuse_changed([file, file.parent])


@pytest.mark.parametrize(
    ("clock", "started"),
    [(0, -5), (-30, -35), (-HOUR, -5), (HOUR, -5)],
    ids=["as ever", "a server's clock", "set back while the stage ran", "set forward while the stage ran"],
)
def test_what_changes_while_the_stage_runs_is_refused(file, set_clock, clock, started):
    set_clock(clock, started)
    with pytest.raises(ChangedError, match=r"a\.png has changed while the stage ran"):
        stage.refuse_changed([file])


@pytest.mark.parametrize(
    ("forward", "told", "there"),
    [(0, 0, True), (0, -HOUR, False), (HOUR, 0, True), (HOUR, -HOUR, True), (HOUR, -3 * HOUR, False), (-HOUR, 0, True)],
    ids=["as ever", "another process", "told afterwards", "told before", "another process all the same", "set back"],
)
def test_a_clock_set_forward_loses_no_run(monkeypatch, forward, told, there):
    """The system's clock cannot be set here; that this process seems to have started earlier looks the same to us."""
    monkeypatch.setattr(orchestration, "STARTED_MONOTONIC", time.monotonic() - 100)
    monkeypatch.setattr(orchestration, "STARTED", time.time() - 100 - forward)
    with subprocess.Popen(["sleep", "60"]) as child:
        assert was_there(child.pid, time.time() + told) == there
        child.kill()


def test_what_is_gone_is_a_change_at_any_time(file, set_clock):
    set_clock(-HOUR, started=-HOUR)
    file.unlink()
    with pytest.raises(ChangedError):
        stage.refuse_changed([file])
