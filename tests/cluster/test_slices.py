"""Several machines that share no file: a bare repository, a folder as DVC remote, and a clone and a folder per machine.

Each has the bytes of one machine's run, and a machine that is killed loses to the one that takes its scenario over.
"""

import os
import shutil
import signal
import subprocess

import pytest

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.cluster import MACHINE
from orchestration.slices import refs, worker_slice, workplace
from orchestration.slices.collect import collect
from orchestration.slices.refs import OvertakenError
from orchestration.slices.run import work
from tests.campaign.chain import processes_in
from tests.conftest import shared
from tests.pipeline.conftest import command, commit, environment, git, repro, wait_for, warm_programs  # noqa: F401
from tests.pipeline.test_workplace import materialised, outcomes

SHARED = {"code", "params"}


def silent(line):
    pass


@pytest.fixture(scope="session")
def cluster(by_dvc, tmp_path_factory):
    """A clone of `by_dvc` with data under DVC and nothing computed, its remote repository, and an empty DVC remote."""

    def build(folder):
        home = folder / "home"
        shutil.copytree(by_dvc, home, ignore=shutil.ignore_patterns("mlflow", "cache", "dvc.lock", "tmp", ".dagster"))
        for name in ("code", "params", "raw", "settings", "noisy", "features", "sub_model", "scores", "purified",
                     "detector", "evaluation"):  # fmt: skip
            shutil.rmtree(home / "data" / name)
        git(folder, "init", "--quiet", "--bare", "origin.git")
        git(home, "remote", "add", "origin", str(folder / "origin.git"))
        for arguments in (
            ["remote", "add", "--default", "store", str(folder / "store")],
            ["add", "data/own/cells", "data/own/line"],
            ["push", "--quiet"],
        ):
            done = command(home, ["dvc", *arguments])
            assert done.returncode == 0, done.stderr
        commit(home, "data under DVC")
        git(home, "push", "--quiet", "origin", "HEAD")

    return shared(tmp_path_factory, "cluster", build)


@pytest.fixture
def remotes(cluster, tmp_path):
    """A copy of the cluster to work in. Its remote repository is found where it was copied to."""
    folder = tmp_path / "cluster"
    shutil.copytree(cluster, folder, symlinks=True)
    git(folder / "home", "remote", "set-url", "origin", str(folder / "origin.git"))
    return folder


def machine(remotes, name, by_dvc=None):
    """A clone and a folder of a machine. With `by_dvc`, its cache knows all runs, so a stage takes no time."""
    clone, folder = remotes / f"{name}-clone", remotes / name
    git(remotes, "clone", "--quiet", "origin.git", str(clone))
    # the address of the copied DVC remote, as a machine may have one of its own
    (clone / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {remotes / 'store'}\n")
    if by_dvc is not None:
        shutil.copytree(by_dvc / ".dvc" / "cache", folder / "cache")
    return clone, folder


def stages_of(by_dvc, scenario):
    return lock_blocks.stages_of(by_dvc, scenario)


def test_two_machines_give_the_record_of_one_and_whoever_pulls_it_computes_nothing(remotes, by_dvc, monkeypatch):
    whole = lock_blocks.read_blocks(by_dvc)
    for name, scenario in (("m1", "line"), ("m2", "noisy20")):
        events = work(*machine(remotes, name, by_dvc), scenario, silent)
        assert [stage for stage, _ in events] == stages_of(by_dvc, scenario)
        found = lock_blocks.read_blocks(remotes / name / "slices" / scenario)
        assert {stage: block for stage, block in found.items() if stage not in SHARED} == {
            stage: block for stage, block in whole.items() if stage in found and stage not in SHARED
        }
        assert found["code"] == whole["code"]

    home = remotes / "home"
    monkeypatch.chdir(home)
    (home / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {remotes / 'store'}\n")
    status = command(home, ["python", "-m", "orchestration", "slices", "status"], COLUMNS="200").stdout
    assert "12 of 12" in status and "m1@" in status and "m2@" in status
    collected = command(home, ["python", "-m", "orchestration", "slices", "collect"])
    assert collected.returncode == 0, collected.stderr
    assert "2 slices with 20 stages: 20 entries of dvc.lock are new" in collected.stdout
    assert (home / "dvc.lock").read_bytes() == (by_dvc / "dvc.lock").read_bytes()
    pulled = command(home, ["dvc", "pull", "--quiet"])
    assert pulled.returncode == 0, pulled.stderr
    assert "up to date" in command(home, ["dvc", "status"]).stdout
    assert "Running stage" not in repro(home)

    dropped = command(home, ["python", "-m", "orchestration", "slices", "drop", "line"])
    assert dropped.returncode == 0, dropped.stderr
    assert [record.scenario for record in refs.records(home)] == ["noisy20"]
    git(home, "push", "--quiet", "origin", "HEAD:refs/llbnad/gone")
    again = collect(home, silent)
    assert (again.changed, again.unfinished, again.gone, again.slices) == ([], [], ["gone"], 1)


def test_a_killed_worker_is_taken_over_and_nothing_published_is_computed_again(remotes, by_dvc):
    clone, folder = machine(remotes, "m1")
    arguments = ["python", "-m", "orchestration", "slices", "work", "line"]
    worker = subprocess.Popen(
        arguments, cwd=clone, env=environment(clone, LLBNAD_MACHINE=str(folder)), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert any("Running stage 'noisy@line'" in line for line in worker.stdout)
    worker.kill()
    worker.wait()
    place = (folder / "slices" / "line").resolve()
    assert wait_for(lambda: not _killed(place))

    refs.fetch(remotes / "home")
    (record,) = refs.records(remotes / "home")
    done = ["code", "raw@line", "params"]  # `settings` may have ended, and not been published
    assert [*record.entries][:3] == done and "noisy@line" not in record.entries

    events = dict(work(*machine(remotes, "m2", by_dvc), "line", silent))
    assert {events[stage] for stage in record.entries} == {"unchanged"}
    assert {events[stage] for stage in events.keys() - record.entries.keys()} == {"restored from cache"}
    mine = lock_blocks.read_blocks(remotes / "m2" / "slices" / "line")
    assert {stage: mine[stage] for stage in record.entries} == record.entries

    # the first one comes back, as it was when it was killed: nothing of it is recorded any more
    lock_blocks.update(place, {"noisy@line": mine["noisy@line"].replace("size: ", "size: 1")}, [])
    with pytest.raises(OvertakenError, match="another worker has taken line over"):
        refs.record(place, "line", "zombie", {}, [worker_slice.Mark.read(place).tip], "m1")
    refs.fetch(remotes / "home")
    assert refs.records(remotes / "home")[0].entries == mine


def _killed(place):
    """Kill what the worker had started; return what lived."""
    found = processes_in(place)
    for number in found:
        os.kill(number, signal.SIGKILL)
    return found


def test_on_a_worker_every_stage_is_published_until_another_takes_over(remotes, by_dvc, monkeypatch):
    clone, folder = machine(remotes, "m1", by_dvc)
    monkeypatch.setenv(MACHINE, str(folder))
    result, events = materialised(clone, "line", ["raw", "noisy", "features"])
    assert result.success, result
    assert outcomes(events)["features"] == "restored from cache"
    refs.fetch(remotes / "home")
    (record,) = refs.records(remotes / "home")
    assert {*record.entries} == {"code", "params", "settings@line", "raw@line", "noisy@line", "features@line"}
    assert workplace.place_of(clone, "line") == folder / "slices" / "line"

    other, another = machine(remotes, "m2", by_dvc)
    place = workplace.open_workplace(clone, "line", lambda line: None)
    worker_slice.take(other, another, "line")
    with pytest.raises(refs.OvertakenError):
        repro(place.root, "--single-item", "sub_model@line-0")
        place.keep(["sub_model@line-0"])
    worker_slice.release(place.root)
    worker_slice.release(another / "slices" / "line")
