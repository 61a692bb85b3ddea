"""Bytes that changed in place are noticed, whatever DVC believes, and the commands that are named bring them back."""

import os
import re
import subprocess

import dagster as dg
import pytest
import typer
from typer.testing import CliRunner

from orchestration.assets.verification import verification
from orchestration.commands.audit import audit
from orchestration.pipeline import dvc, in_place
from orchestration.pipeline.in_place import refuse_changed_in_place
from orchestration.pipeline.verify import DamagedError, damaged_cache, damaged_outputs, refuse_damage
from tests.pipeline.conftest import command, environment, stage

MANIFEST = "data/noisy/noisy20/manifest.parquet"
INSIDE = "data/sub_model/noisy20/0/0/scores.parquet"  # in an output that is a folder


def flip(path, keep_time=False):
    """Change one bit in place, as a bad disk does."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 0x40
    with path.open("r+b") as stream:
        stream.write(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def linked(folder, path):
    """Make an output and DVC's cache one inode, as DVC leaves them; copying the workspace has parted them."""
    recorded = subprocess.run(["md5sum", path], cwd=folder, capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    cached = folder / ".dvc/cache/files/md5" / recorded[:2] / recorded[2:]
    (folder / path).unlink()
    (folder / path).hardlink_to(cached)
    return cached


def follow(folder, message):
    """Do what the message says."""
    for line in re.findall("`([^`]+)`", message)[:1]:
        done = subprocess.run(line, shell=True, cwd=folder, env=environment(folder), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_whole_outputs_are_whole(by_dvc):
    assert damaged_outputs(by_dvc) == [] and damaged_cache(by_dvc) == []
    refuse_damage(by_dvc)


@pytest.mark.parametrize("keep_time", [False, True], ids=["another time", "the same time"])
def test_a_stage_refuses_a_damaged_input_and_says_the_way_back(copy_of, keep_time):
    cached, whole = linked(copy_of, MANIFEST), (copy_of / MANIFEST).read_bytes()
    flip(copy_of / MANIFEST, keep_time)
    assert cached.read_bytes() != whole
    done = stage(copy_of, "features", "noisy20")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: {MANIFEST} is damaged: its MD5 is" in done.stderr
    assert "is the same file, by a hard link, so delete both" in done.stderr
    follow(copy_of, done.stderr)
    assert (copy_of / MANIFEST).read_bytes() == whole == cached.read_bytes()
    refuse_damage(copy_of)


def test_a_file_inside_a_folder_comes_back_from_the_cache(copy_of):
    whole = (copy_of / INSIDE).read_bytes()
    flip(copy_of / INSIDE, keep_time=True)
    done = stage(copy_of, "scores", "noisy20")
    assert done.returncode == 2 and f"{INSIDE} is damaged" in done.stderr
    assert "DVC's cache has the right one" in done.stderr
    assert stage(copy_of, "noisy", "noisy20").returncode == 0  # it does not read that file
    follow(copy_of, done.stderr)
    assert (copy_of / INSIDE).read_bytes() == whole and damaged_outputs(copy_of) == []


def test_a_folder_without_listing_is_compared_as_one(copy_of):
    for listing in (copy_of / ".dvc/cache/files/md5").rglob("*.dir"):
        listing.unlink()
    assert damaged_outputs(copy_of) == []
    flip(copy_of / INSIDE)
    (found,) = damaged_outputs(copy_of)
    assert found.path == "data/sub_model/noisy20/0" and "dvc repro sub_model@noisy20-0" in found.way_back


def test_the_audit_the_run_and_the_nightly_job_find_it(copy_of, monkeypatch):
    dvc.add(copy_of, ["data/own/line"])  # images that no stage makes, as those of a line
    image = copy_of / "data/own/line/0003.png"
    flip(image, keep_time=True)
    flip(copy_of / MANIFEST, keep_time=True)
    rotten = linked(copy_of, "data/noisy/line/manifest.parquet")
    flip(rotten)
    monkeypatch.chdir(copy_of)
    app = typer.Typer()
    app.command()(audit)
    told = CliRunner().invoke(app, ["--outputs-only"])
    assert told.exit_code == 1
    for path in (MANIFEST, "data/own/line/0003.png", "data/noisy/line/manifest.parquet", rotten.relative_to(copy_of)):
        assert f"{path} is damaged" in told.output.replace("\n", " "), told.output
    job, schedule = verification(copy_of)
    done = job.execute_in_process(raise_on_error=False)
    assert not done.success and schedule.cron_schedule == "0 4 * * *"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    with pytest.raises(DamagedError, match="4 files are damaged"):
        refuse_damage(copy_of)
    run = command(copy_of, ["python", "-m", "orchestration", "run", "--verify"])
    assert run.returncode == 2 and "error: 4 files are damaged\n" in run.stderr


def test_a_run_sees_what_changed_in_place_and_reads_the_rest_once(copy_of, monkeypatch):
    linked(copy_of, MANIFEST)
    refuse_changed_in_place(copy_of)
    monkeypatch.setattr(in_place, "file_digest", lambda *_: pytest.fail("a file that is as it was is read"))
    refuse_changed_in_place(copy_of)
    monkeypatch.undo()
    flip(copy_of / MANIFEST)  # the same inode as its copy in the cache: DVC cannot bring it back
    flip(copy_of / INSIDE, keep_time=True)  # DVC cannot see it
    flip(copy_of / "data/noisy/line/manifest.parquet")  # DVC sees it, and has a sound copy
    replaced = copy_of / "data/scores/line/scores.parquet"  # as a stage that was killed leaves it
    content = replaced.read_bytes()
    replaced.unlink()
    replaced.write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=r"^2 files are damaged\n") as told:
        refuse_changed_in_place(copy_of)
    for path in (MANIFEST, INSIDE):
        assert f"{path} is damaged: its MD5 is" in str(told.value)
    run = command(copy_of, ["python", "-m", "orchestration", "run"])
    assert run.returncode == 2 and "error: 2 files are damaged\n" in run.stderr
    for line in str(told.value).splitlines()[1:]:
        follow(copy_of, line)
    done = command(copy_of, ["python", "-m", "orchestration", "run"])
    assert done.returncode == 0, done.stderr
    refuse_damage(copy_of)


def test_a_list_that_is_lost_or_damaged_only_costs_time(copy_of):
    for content in (b"", b"[]", b"\xff", b'{"data/x": 1}'):
        (copy_of / in_place.SEEN).write_bytes(content)
        refuse_changed_in_place(copy_of)
    assert (copy_of / in_place.SEEN).stat().st_size > 1000


def test_what_a_running_command_writes_is_left_out(copy_of):
    flip(copy_of / MANIFEST)
    info = f'{{"pid": {os.getpid()}, "cmd": "dvc repro"}}'
    (copy_of / ".dvc/tmp/rwlock").write_text(f'{{"write": {{"{copy_of.resolve() / MANIFEST}": {info}}}}}')
    assert damaged_outputs(copy_of) == []


def test_before_anything_ran_there_is_nothing_to_compare(tmp_path):
    assert damaged_outputs(tmp_path) == [] and damaged_cache(tmp_path) == []
