"""Several machines that share no file: a bare repository, a folder as DVC remote, and a clone and a folder per machine.

Each has the bytes of one machine's run, and a machine that is killed loses to the one that takes its scenario over.
"""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import yaml

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.cluster import MACHINE
from orchestration.pipeline.dvc import DvcError
from orchestration.slices import refs, worker_slice, workplace
from orchestration.slices.collect import collect
from orchestration.slices.refs import NoDataError, OvertakenError
from orchestration.slices.run import work
from tests.campaign.chain import processes_in
from tests.cluster.conftest import machine
from tests.pipeline.conftest import command, commit, copied, environment, git, repro, wait_for, warm_programs  # noqa: F401
from tests.pipeline.test_slices import edit
from tests.pipeline.test_workplace import materialised, outcomes

SHARED = {"code", "params"}


def silent(line):
    pass


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


def test_above_a_number_of_scenarios_a_run_works_in_slices_and_a_new_scenario_reruns_no_other(by_dvc, tmp_path):
    root = copied(by_dvc, tmp_path / "copy")
    before = lock_blocks.read_blocks(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["scenarios"] |= {name: {**params["scenarios"]["line"], "seed": seed} for seed, name in ((1, "b"), (2, "c"))}
    params["runtime"]["processes"] = 2
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    code = "from pathlib import Path; from orchestration.commands import run; run.ABOVE = 3; run.reproduce(Path())"
    done = command(root, ["python", "-c", code])
    assert done.returncode == 0, done.stderr
    assert "4 of 4 scenarios may have something to do" in done.stdout  # in slices, which nobody asked for
    ran = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("[")}
    assert ran - {"params"} == {stage for name in "bc" for stage in lock_blocks.stages_of(root, name)} - {
        "code", "params", "raw@line"
    }  # fmt: skip
    after = lock_blocks.read_blocks(root)
    assert {name: after[name] for name in before if name != "params"} == {
        name: block for name, block in before.items() if name != "params"
    }
    assert "Running stage" not in repro(root)


def test_a_killed_worker_is_taken_over_and_nothing_published_is_computed_again(remotes, by_dvc):
    place = _work_and_die(*machine(remotes, "m1"), "noisy@line")
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
        refs.record(place, "line", "zombie", {}, worker_slice.SliceMark.read(place).tip, "m1")
    refs.fetch(remotes / "home")
    assert refs.records(remotes / "home")[0].entries == mine

    # nor is anything of the second one, once the slice was dropped
    other = (remotes / "m2" / "slices" / "line").resolve()
    refs.remove(remotes / "home", "line")
    with pytest.raises(OvertakenError, match="or its slice was dropped"):
        refs.record(other, "line", "late", mine, worker_slice.SliceMark.read(other).tip, "m2")
    refs.fetch(remotes / "home")
    assert refs.records(remotes / "home") == []


def test_workers_of_one_clone_do_not_disturb_each_other(remotes):
    clone, folder = machine(remotes, "m1")
    place = worker_slice.take(clone, folder, "line")

    def publish_often() -> None:
        last = worker_slice.SliceMark.read(place).tip
        for number in range(20):
            last = refs.record(place, "line", f"stage {number}", {}, last, "m1")

    with ThreadPoolExecutor() as threads:
        publishing = threads.submit(publish_often)
        while not publishing.done():
            refs.fetch(clone)  # as another worker does that takes a slice
        publishing.result()
    assert [record.what for record in refs.records(clone)] == ["stage 19"]
    for ref in (refs.MAIN, f"{refs.KNOWN}/line"):
        (clone / ".git" / f"{ref}.lock").touch()  # a git that is killed leaves these
    last = refs.record(place, "line", "another", {}, refs.tip(clone, "line"), "m1")
    refs.remove(clone, "line")
    assert last and refs.records(clone) == []
    worker_slice.release(place)


def test_two_machines_that_both_die_leave_what_one_machine_makes(remotes, by_dvc):
    first, second = machine(remotes, "m1"), machine(remotes, "m2")
    _work_and_die(*first, "features@line")
    _work_and_die(*second, "detector@line")  # without a cache of its own: it computes what it does
    events = dict(work(*first, "line", silent))
    assert events["scores@line"] != "ran" and events["detector@line"] == events["evaluation@line"] == "ran"
    found, whole = lock_blocks.read_blocks(first[1] / "slices" / "line"), lock_blocks.read_blocks(by_dvc)
    assert {*found} == {*stages_of(by_dvc, "line")}
    assert {name: found[name] for name in {*found} - SHARED} == {name: whole[name] for name in {*found} - SHARED}
    worker_slice.release(first[1] / "slices" / "line")


def _work_and_die(clone, folder, stage):
    """Work the line on a machine until a stage runs, then kill all of it; return the folder of its slice."""
    arguments = ["python", "-m", "orchestration", "slices", "work", "line"]
    worker = subprocess.Popen(
        arguments, cwd=clone, env=environment(clone, LLBNAD_MACHINE=str(folder)), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert any(f"Running stage '{stage}'" in line for line in worker.stdout)
    worker.kill()
    worker.wait()
    place = (folder / "slices" / "line").resolve()
    assert wait_for(lambda: not _killed(place))
    return place


def _killed(place):
    """Kill what the worker had started; return what lived."""
    found = processes_in(place)
    for number in found:
        with suppress(ProcessLookupError):  # it has ended meanwhile
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


def test_an_asset_alone_finds_what_another_worker_made_last(remotes, by_dvc, monkeypatch):
    """As when Dagster tries `challenger` again on another machine, since the first one died after the stages."""
    first, second = machine(remotes, "m1", by_dvc), machine(remotes, "m2")
    assert dict(work(*first, "line", silent))["detector@line"] == "restored from cache"
    monkeypatch.setenv(MACHINE, str(second[1]))
    place = workplace.place_of(second[0], "line")
    assert place == second[1] / "slices" / "line"
    assert (place / "data/detector/line/llbnad.safetensors").is_file()
    taken = worker_slice.SliceMark.read(place)
    assert workplace.place_of(second[0], "line") == place and worker_slice.SliceMark.read(place) == taken, "it was held"
    worker_slice.release(place)

    home = remotes / "home"
    edit(home, "line", suspects=4)
    commit(home, "fewer suspects")
    git(home, "push", "--quiet", "origin", "HEAD")
    assert dict(work(*first, "line", silent))["evaluation@line"] == "ran"
    newer = lock_blocks.read_blocks(remotes / "m1" / "slices" / "line")
    assert lock_blocks.read_blocks(workplace.place_of(second[0], "line")) == newer != lock_blocks.read_blocks(by_dvc)
    worker_slice.release(place)


def test_data_that_was_never_pushed_is_refused_before_the_scenario_is_claimed(remotes):
    clone, folder = machine(remotes, "m1")
    (remotes / "store").rename(remotes / "away")
    with pytest.raises(DvcError, match=r"DVC's remote is the folder .*store, which is not on this machine: mount it"):
        worker_slice.take(clone, folder, "line")
    (remotes / "away").rename(remotes / "store")
    for file in (remotes / "store" / "files").rglob("*"):
        if file.is_file() and file.suffix != ".dir":  # the list of the folder's files is there
            file.unlink()
    with pytest.raises(NoDataError, match=r"does not have all of data/own/line"):
        worker_slice.take(clone, folder, "line")
    shutil.rmtree(remotes / "store" / "files")
    with pytest.raises(NoDataError, match=r"does not have all of data/own/line.*: `dvc push data/own/line"):
        worker_slice.take(clone, folder, "line")
    refs.fetch(remotes / "home")
    assert refs.records(remotes / "home") == []
    worker_slice.release(folder / "slices" / "line")
