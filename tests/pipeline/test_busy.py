"""If another process works on the same files, every door waits for it and says so once."""

import shutil
import subprocess
from types import SimpleNamespace

import pytest
from filelock import FileLock
from rich.console import Console

from orchestration.commands.progress import Progress
from orchestration.commands.run import _repro
from orchestration.line.arrivals import read_report
from orchestration.line.ingest import ingest
from orchestration.pipeline import busy, dvc
from orchestration.pipeline.repro import repro_stage
from tests.conftest import REPOSITORY, save_image
from tests.pipeline.conftest import environment

STAGE = """\
stages:
  copy:
    cmd: while [ ! -e go ]; do sleep 0.1; done; cp read written
    deps: [read]
    outs: [written]
"""


@pytest.fixture
def waits(monkeypatch):
    """Replace the waiting: `then` is called instead, and `seconds` lists how long each wait would be."""
    seconds = []
    found = SimpleNamespace(seconds=seconds, then=lambda: None)
    monkeypatch.setattr(busy, "time", SimpleNamespace(sleep=lambda wait: (seconds.append(wait), found.then())))
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(STAGE)
    (tmp_path / "read").write_text("content")
    return tmp_path


@pytest.fixture
def other(folder, waits):
    """A `dvc repro` in the middle of its stage, which ends while the door under test waits."""
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert any(line.startswith("Running stage") for line in process.stdout)

    def end():
        (folder / "go").touch()
        assert process.wait(60) == 0

    waits.then = end
    yield process
    (folder / "go").touch()
    process.wait(60)


def by_stage(folder):
    assert repro_stage(folder, "copy", lambda line: None) == "unchanged"


def by_run(folder):
    progress = Progress(Console(), 1)
    _repro(folder, progress)
    assert (progress.seen, progress.ran) == (1, [])


def by_add(folder):
    dvc.add(folder, ["read"])
    assert (folder / "read.dvc").is_file()


@pytest.mark.parametrize("door", [by_stage, by_run, by_add])
def test_every_door_waits_for_another_dvc(folder, other, waits, capfd, door):
    door(folder)
    assert other.poll() == 0 and (folder / "written").read_text() == "content"
    assert waits.seconds == [busy.SECONDS]
    assert "another process works on the same files" in capfd.readouterr().err


def test_a_failure_that_is_no_business_of_others_is_not_tried_again(folder, waits, capfd):
    (folder / "dvc.yaml").write_text(
        STAGE.replace("while [ ! -e go ]; do sleep 0.1; done", "echo worked >> log; exit 1")
    )
    with pytest.raises(dvc.DvcError, match="the reason stands above"):
        _repro(folder, Progress(Console(), 1))
    assert "failed to reproduce 'copy'" in capfd.readouterr().err
    with pytest.raises(dvc.DvcError, match=r"stage copy failed:[^$]*failed to reproduce 'copy'"):
        repro_stage(folder, "copy", lambda line: None)
    assert waits.seconds == [] and (folder / "log").read_text().count("worked") == 2


def test_an_ingest_waits_for_another_of_its_line(tmp_path, waits, capsys):
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    save_image(tmp_path / "data" / "incoming" / "bottle" / "a.png")
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    another = FileLock(tmp_path / ".dvc" / "tmp" / "ingest-bottle.lock")
    another.acquire()
    waits.then = another.release
    done = ingest(tmp_path, "bottle", 0, lambda root, paths: None)
    assert waits.seconds == [busy.SECONDS] and done.count("raw") == len(read_report(tmp_path, "bottle")) == 1
    assert capsys.readouterr().err.startswith("waiting: another ingest of line bottle is at work")


def test_in_the_end_the_error_is_let_through(waits, capsys):
    tried = []

    @busy.retry_when_busy
    def work(number):
        tried.append(number)
        raise busy.BusyError("busy")

    with pytest.raises(busy.BusyError):
        work(7)
    assert tried == [7] * busy.ATTEMPTS and len(waits.seconds) == busy.ATTEMPTS - 1
    assert capsys.readouterr().err == "waiting: busy\n"


NOT_KEPT = "ERROR: failed to transfer '3feeae12' - [Errno 28] No space left on device: 'd/f3' -> '/cache/3f/x.tmp'"


@pytest.mark.parametrize("door", [by_stage, by_run, by_add])
def test_a_full_cache_is_an_error_though_dvc_gives_zero(folder, monkeypatch, tmp_path_factory, door):
    """DVC says it for a file of a folder, records the folder, and ends as if all were well."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "dvc").write_text(f'#!/bin/sh\necho "Running stage \'copy\':"\necho "{NOT_KEPT}" >&2\n')
    (programs / "dvc").chmod(0o755)
    monkeypatch.setattr(dvc, "_executable", lambda: str(programs / "dvc"))
    with pytest.raises(dvc.DvcError, match=r"1 files did not get .*No space left on device: 'd/f3' .*: make room"):
        door(folder)
