"""Leftovers of a killed process are mended by the next command of any door; nobody has to delete a file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestration.assets.lost_runs import was_there
from orchestration.commands.progress import Progress
from orchestration.commands.run import _repro
from orchestration.pipeline import busy, dvc
from orchestration.pipeline.busy import BusyError
from orchestration.pipeline.left_behind import dvc_processes, is_zombie, mend_lock, mend_rwlock
from orchestration.pipeline.repro import repro_stage
from tests.pipeline.conftest import COLD, environment

STAGES = """\
stages:
  one:
    cmd: cp read first
    deps: [read]
    outs: [first]
  two:
    cmd: cp first second
    deps: [first]
    outs: [second]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "read").write_text("content")
    return tmp_path


@pytest.fixture
def zombie():
    """The id of a process that has ended and that nobody reaps."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    while not is_zombie(process.pid):
        time.sleep(0.01)
    yield process.pid
    process.wait()


def by_stage(folder):
    repro_stage(folder, "one", lambda line: None)
    repro_stage(folder, "two", lambda line: None)


def by_run(folder):
    _repro(folder, Progress(Console(), 2))


def by_add(folder):
    (folder / "other").write_text("more")
    dvc.add(folder, ["other"])
    by_run(folder)


@pytest.mark.parametrize("door", [by_stage, by_run, by_add])
def test_every_door_mends_an_empty_rwlock(folder, door, capfd):
    rwlock = folder / ".dvc" / "tmp" / "rwlock"
    rwlock.touch()
    door(folder)
    assert (folder / "second").read_text() == "content"
    assert f"mended: {rwlock} was damaged" in capfd.readouterr().err


def test_plain_dvc_mends_first_and_nothing_is_lost(folder):
    by_run(folder)
    whole = (folder / "dvc.lock").read_bytes()
    dvc_of_venv = Path(COLD).with_name("dvc")
    for rwlock, lock in (("", whole), ('{"write": {"/a', whole[:-30]), ("{}", b"")):
        (folder / ".dvc" / "tmp" / "rwlock").write_text(rwlock)
        (folder / "dvc.lock").write_bytes(lock)
        done = subprocess.run([dvc_of_venv, "repro"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0 and "mended: " in done.stderr, done.stdout + done.stderr
        assert (folder / "dvc.lock").read_bytes() == whole
    assert "mended" not in subprocess.run([dvc_of_venv, "status"], cwd=folder, capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    "content", ["", '{"write": {"/a": {"pi', "[]", "null", '{"read": {"/a": [{"cmd": "dvc"}]}}', "\x00\x00", "{}x"]
)
def test_a_damaged_rwlock_is_deleted(folder, content):
    rwlock = folder / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(content)
    mend_rwlock(folder)
    assert not rwlock.exists()


@pytest.mark.parametrize(
    "content", [{}, {"write": {}, "read": {}}, {"write": {"/a": {"pid": os.getpid(), "cmd": "dvc repro"}}}]
)
def test_a_rwlock_that_is_right_is_left_alone(folder, content):
    rwlock = folder / ".dvc" / "tmp" / "rwlock"
    rwlock.write_text(json.dumps(content))
    mend_rwlock(folder)
    assert json.loads(rwlock.read_text()) == content


def test_while_dvc_works_a_damaged_rwlock_stays_and_the_line_says_what_to_delete(folder):
    rwlock = folder / ".dvc" / "tmp" / "rwlock"
    (folder / "dvc.yaml").write_text(
        STAGES.replace("cp read first", "cp read first; while [ ! -e go ]; do sleep 0.1; done")
    )
    other = subprocess.Popen(
        ["dvc", "repro", "one"], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, text=True
    )
    try:
        assert any(line.startswith("Running stage") for line in other.stdout)
        assert dvc_processes(folder) == [other.pid] and dvc_processes(folder / "elsewhere") == []
        whole = rwlock.read_text()
        rwlock.write_text("")
        with pytest.raises(BusyError, match=rf"DVC \(process {other.pid}\) works here: .* delete .*rwlock"):
            mend_rwlock(folder)
        rwlock.write_text(whole)
    finally:
        (folder / "go").touch()
        assert other.wait(60) == 0


def test_a_zombie_blocks_nobody(folder, zombie, capfd):
    rwlock = folder / ".dvc" / "tmp" / "rwlock"
    info = {"pid": zombie, "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"write": {str(folder / "first"): info}, "read": {str(folder / "read"): [info]}}))
    by_run(folder)  # DVC itself would call the files busy, for ever
    assert (folder / "second").exists() and "were never reaped" in "".join(capfd.readouterr().err)
    assert not was_there(zombie, time.time())


def test_a_dvc_lock_that_is_cut_off_anywhere_is_mended_and_nothing_is_lost(folder, monkeypatch):
    monkeypatch.setattr(busy, "SECONDS", 0)
    by_run(folder)
    path = folder / "dvc.lock"
    whole = path.read_bytes()
    second = whole.index(b"  two:")
    for place in (0, 5, 60, second - 1, second + 12, second + 60):
        path.write_bytes(whole[:place])
        by_run(folder)
        assert path.read_bytes() == whole, place
        path.write_bytes(whole[:place])
        assert set(dvc.read_lock(folder).get("stages") or {}) <= {"one", "two"}


@pytest.mark.parametrize("damage", ["<<<<<<< ours\n", "\tx: 1\n", "  three: 4\n"])
def test_a_dvc_lock_that_is_damaged_elsewhere_is_left_alone(folder, damage):
    by_run(folder)
    path = folder / "dvc.lock"
    path.write_text(path.read_text().replace("  one:\n", f"{damage}  one:\n"))
    before = path.read_text()
    assert not mend_lock(path)
    with pytest.raises(dvc.DvcError, match=r"dvc\.lock is damaged: `git checkout dvc\.lock`"):
        dvc.read_lock(folder)
    assert path.read_text() == before


def test_a_record_that_is_empty_is_made_anew(folder):
    (folder / "images").mkdir()
    (folder / "images" / "a").write_text("a")
    (folder / "images.dvc").touch()
    dvc.add(folder, ["images"])
    assert dvc.tracked_version(folder, "images")


def test_a_session_of_zombies_is_not_waited_for(folder, monkeypatch):
    from orchestration.pipeline import process

    orphan = "import os, time\nif os.fork() == 0: os._exit(0)\ntime.sleep(60)"  # its child is reaped by nobody
    begun = time.monotonic()
    with process.running([sys.executable, "-c", orphan], folder) as started:
        while not any(is_zombie(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit()):
            time.sleep(0.02)
        assert started.poll() is None
    assert time.monotonic() - begun < process.TERMINATE_SECONDS
