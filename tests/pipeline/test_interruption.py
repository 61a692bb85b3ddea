"""Runs that are killed, cancelled or blocked leave no partial output and no orphan process, and the next run works."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from llbnad.model.model import Model
from llbnad.model.scores import Scores
from orchestration.assets.lost_runs import end_lost_runs, was_there
from orchestration.assets.retraining import run_in_progress
from orchestration.pipeline import dvc
from orchestration.pipeline.repro import StageError, repro_stage
from tests.campaign.chain import processes_in
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import command, environment, repro, stage, wait_for

SUB_MODEL = "data/sub_model/noisy20/0/0"


KILLED = """
import os, runpy, sys
signal, event, text = int(sys.argv[1]), *sys.argv[2:]
def watch(name, arguments):
    if name == event and any(text in str(one) for one in arguments):
        os.kill(os.getpid(), signal)
sys.addaudithook(watch)
sys.argv = ["sub_model", "noisy20", "0"]
runpy.run_module("orchestration.stages.sub_model", run_name="__main__")
"""
MOMENTS = [  # when training is about to begin, and before each file of three takes its place
    ("exec", "patchcore/detector.py"),
    ("os.rename", "scores.parquet"),
    ("os.rename", "maps.safetensors"),
    ("os.rename", "model.safetensors"),
]


def test_lists_for_git_that_a_killed_run_did_not_write_change_nothing(copy_of):
    """DVC writes them when it ends, into folders of outputs as well, and these are dependencies of other stages."""
    lists = list((copy_of / "data").rglob(".gitignore"))
    assert copy_of / "data/sub_model/noisy20/.gitignore" in lists
    for path in lists:
        path.unlink()
    assert "up to date" in command(copy_of, ["dvc", "status"]).stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_sub_model_leaves_no_partial_output_and_resumes(copy_of, number):
    folder = copy_of / SUB_MODEL
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = []
    for moment in MOMENTS:
        for path in folder.iterdir():
            path.unlink()
        done = command(copy_of, ["python", "-c", KILLED, str(int(number)), *moment])
        assert done.returncode in (-number, 128 + number), done.stderr
        outputs = [path for path in folder.iterdir() if not path.name.startswith(".")]
        for path in outputs:
            assert path.read_bytes() == whole[path.name], f"{path} is partial after {moment}"
        left.append(len(outputs))
        if number == signal.SIGTERM:
            assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    assert left == [0, 0, 1, 2]
    repro(copy_of)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".tmp"} == whole
    assert len(Scores.read(folder / "scores.parquet").image_ids) > 0
    assert Model.load(folder / "model.safetensors")


def test_interrupted_function_ends_the_whole_process_group(copy_of, cold_programs):
    resolved = copy_of.resolve()
    with (
        pytest.raises(KeyboardInterrupt),
        dvc.running(["repro", "--force", "--single-item", "evaluation@noisy20"], copy_of) as process,
    ):
        assert wait_for(lambda: len(processes_in(resolved)) >= 2)
        raise KeyboardInterrupt
    assert process.poll() is not None
    assert wait_for(lambda: not processes_in(resolved), 5)


@pytest.fixture
def dagster_run(copy_of):
    """A Dagster run in a process group of its own, while it computes stage `evaluation`."""
    resolved = copy_of.resolve()
    (copy_of / "data/evaluation/noisy20/metrics.json").unlink()
    (copy_of / ".dvc/cache").rename(copy_of / ".dvc/elsewhere")  # else it is restored at once
    process = subprocess.Popen(
        ["dagster", "asset", "materialize", "--select", "evaluation", "--partition", "noisy20",
         "-m", "orchestration.definitions"],
        cwd=copy_of, env=environment(copy_of, cold=True), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip

    def stage_is_running():
        lines = [Path(f"/proc/{number}/cmdline") for number in processes_in(resolved)]
        return any(b"orchestration.stages.evaluation" in line.read_bytes() for line in lines if line.exists())

    assert wait_for(stage_is_running)
    yield process
    for number in processes_in(resolved):
        os.kill(number, signal.SIGKILL)


def test_cancelled_dagster_run_ends_its_stage(copy_of, dagster_run):
    os.kill(dagster_run.pid, signal.SIGINT)  # what cancelling a run does to its process
    dagster_run.wait(60)
    assert wait_for(lambda: not processes_in(copy_of.resolve()), 10)
    assert not (copy_of / "data/evaluation/noisy20/metrics.json").exists()


def test_a_run_that_vanished_is_ended_and_its_scenario_may_run_again(copy_of, dagster_run):
    with dg.DagsterInstance.from_config(str(copy_of / ".dagster")) as instance:
        assert "is started" in run_in_progress(instance, "noisy20")
        assert end_lost_runs(instance) == []  # it is at work
        os.kill(dagster_run.pid, signal.SIGKILL)
        dagster_run.wait(30)
        assert "is started" in run_in_progress(instance, "noisy20")  # what Dagster believes for ever
        (lost,) = end_lost_runs(instance)
        assert instance.get_run_by_id(lost).status == dg.DagsterRunStatus.FAILURE
        assert run_in_progress(instance, "noisy20") is None
        assert end_lost_runs(instance) == []


def test_a_process_that_got_the_number_later_is_another():
    assert was_there(os.getpid(), time.time())
    assert not was_there(os.getpid(), time.time() - 1e6)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not was_there(ended.pid, time.time())


def test_failed_stage_names_its_error_and_keeps_what_was_done(copy_of):
    for image in (copy_of / "data/own/cells/bad").iterdir():
        image.unlink()
    with pytest.raises(StageError, match="failed") as caught:
        repro_stage(copy_of, "raw@cells", lambda line: None)
        repro_stage(copy_of, "noisy@noisy20", lambda line: None)
    assert "there are 0: the largest possible ratio is 0.0" in str(caught.value) and caught.value.refused


def test_unknown_scenario_is_one_clear_line(copy_of):
    done = stage(copy_of, "noisy", "moon")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: unknown scenario 'moon'; params.yaml has ['line', 'noisy20']"


def test_lock_is_never_read_half_written(copy_of):
    """Readers wait for DVC's own lock, so dvc.lock is whole whenever it is read."""
    whole = set(dvc.read_lock(copy_of)["stages"])
    with dvc.running(["--wait-for-lock", "repro", "--force", "--single-item", "noisy@noisy20"], copy_of) as process:
        while process.poll() is None:
            assert set(dvc.read_lock(copy_of)["stages"]) == whole
            time.sleep(0.02)  # dvc wants its lock as well
    assert process.returncode == 0


CHANGED = "{} has changed while the stage ran"
HEAT = "llbnad/purification/heat.py"


@pytest.mark.parametrize(
    ("stage", "edited", "addition", "reason"),
    [
        ("scores@noisy20", HEAT, "# edited\n", "{} is not the file that data/code/scores.csv lists"),
        ("scores@noisy20", HEAT, "", CHANGED),  # and back again, as far as one can see
        ("purified@noisy20", "data/review/none.csv", f"{'0' * 64},normal\n", CHANGED),
    ],
    ids=["code", "touched code", "verdicts"],
)
def test_what_is_edited_while_a_stage_runs_is_not_recorded_as_what_it_worked_with(
    copy_of, stage, edited, addition, reason
):
    """DVC hashes code and verdicts after a stage has ended."""
    file, before = copy_of / edited, dvc.read_lock(copy_of)["stages"][stage]
    link = copy_of / "mlflow" / "runs" / "noisy20.json"
    recorded = link.stat().st_mtime_ns
    lines = []
    with dvc.running(["repro", "--force", "--single-item", stage], copy_of) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Running stage"):
                file.write_text(file.read_text() + addition)
                break
        while process.poll() is None:  # again and again: nobody knows when the stage has begun
            os.utime(file)
            time.sleep(0.05)
        lines += process.stdout
    assert process.returncode != 0
    assert any(reason.format(edited) in line for line in lines), lines
    assert dvc.read_lock(copy_of)["stages"][stage] == before and link.stat().st_mtime_ns == recorded
    repro_stage(copy_of, "code", lambda line: None)
    again = repro_stage(copy_of, stage, lambda line: None)
    assert (again, link.stat().st_mtime_ns > recorded) == (("ran", True) if addition else ("unchanged", False))


def test_what_only_looks_changed_is_none(tmp_path):
    """A camera's clock may be wrong, and a link may lead nowhere; both are there before the stage."""
    (tmp_path / "early.png").touch()
    os.utime(tmp_path / "early.png", (time.time() + 1e6,) * 2)
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    time.sleep(0.1)
    look = "import sys, pathlib, orchestration.pipeline.stage as c; c.refuse_changed(map(pathlib.Path, sys.argv[1:]))"
    paths = [tmp_path, *tmp_path.iterdir()]
    assert subprocess.run([sys.executable, "-c", look, *paths], cwd=REPOSITORY).returncode == 0
    gone = subprocess.run([sys.executable, "-c", look, tmp_path / "x"], cwd=REPOSITORY, capture_output=True, text=True)
    assert "x has changed while the stage ran" in gone.stderr


def relabel(copy_of):
    """By a move: the file keeps the date of its content."""
    image = next((copy_of / "data/own/cells/good").glob("*.png"))
    image.rename(copy_of / "data/own/cells/bad" / image.name)
    return "data/own/cells"


def rename_category(copy_of):
    params = copy_of / "params.yaml"
    params.write_text(params.read_text().replace("category: cells", "category: solar"))
    return "datasets.cells"


def is_open(file, processes):
    for number in processes:
        with suppress(OSError):  # it ended meanwhile
            if file in [one.readlink() for one in Path(f"/proc/{number}/fd").iterdir()]:
                return True
    return False


@pytest.mark.parametrize("change", [relabel, rename_category])
def test_a_dataset_that_changes_while_it_is_read_is_not_recorded(copy_of, change):
    large = copy_of / "data/own/cells/good/large.png"
    Image.new("L", (9000, 9000)).save(large)  # takes a while to read
    before = dvc.read_lock(copy_of)["stages"]["raw@cells"]
    with dvc.running(["repro", "--single-item", "raw@cells"], copy_of) as process:
        next(line for line in process.stdout if line.startswith("Running stage"))  # DVC has hashed it before
        while process.poll() is None and not is_open(large, processes_in(copy_of)):
            time.sleep(0.01)
        changed = change(copy_of)
        said = process.stdout.read()
    assert process.returncode != 0
    assert f"error: {changed}" in said and "has changed while the stage ran" in said, said
    assert dvc.read_lock(copy_of)["stages"]["raw@cells"] == before
    large.unlink()
    assert repro_stage(copy_of, "raw@cells", lambda line: None) == "ran"
