"""A scenario worked in a slice has the bytes of one machine's run, and git alone decides who may record a slice.

tests/cluster/test_slices.py has several machines.
"""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from llbnad.errors import ConfigError
from orchestration.pipeline import lock_blocks
from orchestration.pipeline.lock_blocks import DisagreementError
from orchestration.pipeline.params import load_params
from orchestration.slices import refs, worker_slice
from orchestration.slices.collect import collect
from orchestration.slices.local_slice import open_slice
from orchestration.slices.refs import OvertakenError, SliceError
from orchestration.slices.state import State
from tests.campaign.chain import processes_in
from tests.pipeline.conftest import command, commit, copied, environment, git, repro, wait_for


def silent(line):
    pass


FINAL = "  evaluation:\n    foreach: ${scenarios}\n    do: {cmd: x}\n"


@pytest.fixture
def small(tmp_path):
    """A repository whose data set is in git: to take it needs nothing of DVC."""
    home = tmp_path / "home"
    (home / ".dvc").mkdir(parents=True)
    (home / ".dvc" / "config").write_text("[core]\n    remote = store\n['remote \"store\"']\n    url = /nowhere\n")
    (home / ".gitignore").write_text("/data/own\n")
    (home / "dvc.yaml").write_text("stages:\n  raw:\n    foreach: ${datasets}\n    do: {cmd: x}\n" + FINAL)
    (home / "images.txt").write_text("images\n")
    (home / "data" / "own" / "x").mkdir(parents=True)
    roots = {"in_git": "images.txt", "own": "data/own/x", "far": "/nowhere/at/all"}
    content = {"datasets": {name: {"root": root} for name, root in roots.items()},
               "scenarios": {**{name: {"dataset": name} for name in roots}, "twin": {"dataset": "in_git"}}}  # fmt: skip
    (home / "params.yaml").write_text(yaml.safe_dump(content))
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(home, "init", "--quiet")
    commit(home, "small")
    git(home, "remote", "add", "origin", str(tmp_path / "origin.git"))
    git(home, "push", "--quiet", "origin", "HEAD")
    return home


def test_the_fence_is_git_s(small, tmp_path):
    entries = {"raw@in_git": "  raw@in_git:\n    cmd: x\n"}
    place = tmp_path / "m1" / "slices" / "in_git"
    git(small, "worktree", "add", "--lock", "--detach", str(place))  # as `git worktree add` leaves it when killed
    shutil.rmtree(place)
    first = worker_slice.take(small, tmp_path / "m1", "in_git")
    second = worker_slice.take(small, tmp_path / "m2", "in_git")
    before = worker_slice.SliceMark.read(first)
    with pytest.raises(OvertakenError, match=r"refs/llbnad/in_git is not as this worker left it"):
        refs.record(first, "in_git", "raw@in_git", entries, before.tip, "m1")
    assert worker_slice.SliceMark.read(first) == before
    refs.record(second, "in_git", "raw@in_git", entries, worker_slice.SliceMark.read(second).tip, "m2")
    refs.fetch(small)
    (record,) = refs.records(small)
    assert (record.by, record.what, record.entries) == ("m2", "raw@in_git", entries)
    assert len(git(tmp_path / "origin.git", "rev-list", "--all").split()) == 4, "no history is lost"
    worker_slice.release(first)
    again = worker_slice.take(small, tmp_path / "m1", "in_git")
    assert again == first and lock_blocks.read_blocks(again) == entries


def test_slices_that_disagree_are_not_collected(small, tmp_path):
    for scenario in ("in_git", "twin"):
        place = worker_slice.take(small, tmp_path / "m1", scenario)
        entries = {"raw@in_git": f"  raw@in_git:\n    cmd: {scenario}\n"}
        refs.record(place, scenario, "raw@in_git", entries, worker_slice.SliceMark.read(place).tip, "m1")
    with pytest.raises(DisagreementError, match=r"slices in_git and twin disagree about stage raw@in_git"):
        collect(small, silent)
    assert not (small / "dvc.lock").exists()


def test_one_process_of_a_machine_has_a_slice_at_a_time(small, tmp_path):
    place = worker_slice.take(small, tmp_path / "m1", "in_git")
    code = "from pathlib import Path; from orchestration.slices import worker_slice; import sys\n"
    code += "worker_slice.take(Path(sys.argv[1]), Path(sys.argv[2]), 'in_git')"
    again = ["python", "-c", code, str(small), str(tmp_path / "m1")]
    done = command(Path.cwd(), again)
    assert "another process of this machine works on in_git" in done.stderr
    worker_slice.release(place)
    assert command(Path.cwd(), again).returncode == 0


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("own", r"datasets.own.root is data/own/x, .*neither in git nor under DVC: `dvc add data/own/x && dvc push`"),
        ("far", r"datasets.far.root is /nowhere/at/all, which is not on this machine: mount it here, or copy it"),
    ],
)
def test_data_that_workers_cannot_get_is_refused_with_the_remedy(small, tmp_path, scenario, said):
    with pytest.raises(SliceError, match=said):
        worker_slice.take(small, tmp_path / "m1", scenario)
    assert git(tmp_path / "origin.git", "for-each-ref", "refs/llbnad") == "", "nothing is claimed"


def test_a_repository_without_a_dvc_remote_is_refused(small, tmp_path):
    (small / ".dvc" / "config").write_text("")
    commit(small, "no remote")
    git(small, "push", "--quiet", "origin", "HEAD")
    with pytest.raises(SliceError, match=r"no default remote .*`dvc remote add -d store URL`"):
        worker_slice.take(small, tmp_path / "m1", "in_git")


def test_without_a_machine_s_folder_the_workspace_is_the_root_and_nothing_is_published(small, tmp_path, monkeypatch):
    assert worker_slice.workspace(small, "in_git") == small
    assert worker_slice.publish(small, ["raw@in_git"]) == []
    monkeypatch.setenv("LLBNAD_MACHINE", str(tmp_path / "m3"))
    assert worker_slice.workspace(small, "in_git") == tmp_path / "m3" / "slices" / "in_git"


# ---- one machine


def edit(folder, scenario, **settings):
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text())
    content["scenarios"][scenario].update(settings)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def run(folder, *options, **extra):
    return command(folder, ["python", "-m", "orchestration", "run", "--slices", *options], **extra)


def ran(done):
    """The stages that a run has told of: `[3/22] settings@line  (4 s)`."""
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[")}


def pending(folder):
    return State(folder, load_params(folder / "params.yaml")).pending()


def test_a_run_in_slices_leaves_what_one_dvc_repro_leaves(copy_of, tmp_path):
    before = (copy_of / "dvc.lock").read_bytes()
    assert pending(copy_of) == ["noisy20", "line"], "nobody has looked at them yet"
    done = run(copy_of)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 scenarios may have something to do" in done.stdout and "Nothing to do" in done.stdout
    assert (copy_of / "dvc.lock").read_bytes() == before
    assert "up to date" in command(copy_of, ["dvc", "status"]).stdout

    # what may give one something to do
    assert pending(copy_of) == []
    metrics = copy_of / "data/evaluation/line/metrics.json"
    metrics.unlink()
    shutil.copy(copy_of / "data/own/line/0000.png", copy_of / "data/own/line/new.png")
    (copy_of / "data/code/raw.csv").chmod(0o644)
    assert pending(copy_of) == ["line"]
    (copy_of / "data/own/line/new.png").unlink()
    assert pending(copy_of) == ["line"]

    # one is edited and works, while the other one fails
    review = copy_of / "data/review/line.csv"
    review.write_text("no verdicts\n")
    edit(copy_of, "line", review="data/review/line.csv")
    edit(copy_of, "noisy20", suspects=4)
    plain = copied(copy_of, tmp_path / "plain")
    done = run(copy_of)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "1 of 2 scenarios failed\nline: " in done.stderr and "line.csv" in done.stderr.split("failed\nline: ")[1]
    stages = {f"{stage}@noisy20" for stage in ("settings", "purified", "evaluation")}
    assert ran(done) == stages | {"params", "settings@line", "purified@line"}
    assert pending(copy_of) == ["line"]

    # mended, one machine with the same cache restores all of it
    edit(copy_of, "line", review="data/review/none.csv")
    done = run(copy_of)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 scenarios" in done.stdout and metrics.is_file()
    edit(plain, "line", review="data/review/none.csv")
    shutil.rmtree(plain / ".dvc" / "cache")
    shutil.copytree(copy_of / ".dvc" / "cache", plain / ".dvc" / "cache")
    assert "Running stage 'evaluation" not in repro(plain)
    assert (plain / "dvc.lock").read_bytes() == (copy_of / "dvc.lock").read_bytes()
    assert "up to date" in command(copy_of, ["dvc", "status"]).stdout


def test_an_interrupted_run_ends_its_processes_and_goes_on(copy_of, cold_programs):
    edit(copy_of, "line", suspects=4)
    arguments = ["python", "-m", "orchestration", "run", "--slices"]
    process = subprocess.Popen(
        arguments, cwd=copy_of, env=environment(copy_of, cold=True), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert any("purified@line" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from here" in said
    assert wait_for(lambda: not processes_in(copy_of.resolve()), 20)
    done = run(copy_of)
    assert done.returncode == 0, done.stderr
    assert ran(done) == {"purified@line", "evaluation@line"}
    assert "up to date" in command(copy_of, ["dvc", "status"]).stdout


def test_a_path_that_leaves_the_repository_is_refused(copy_of):
    edit(copy_of, "line", review="../none.csv")
    with pytest.raises(ConfigError, match=r"the path \.\./none\.csv leaves the repository"):
        open_slice(copy_of, "line", load_params(copy_of / "params.yaml"))
