"""Arrival: nothing is lost, doubled or half-moved, wherever an ingest is killed and however often."""

import errno
import gc
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from llbnad.config import ImageFolderDataset
from llbnad.data.images import load_rgb
from llbnad.data.sources import read_source
from llbnad.errors import DataError
from llbnad.utils.files import file_digest
from orchestration.line import examine
from orchestration.line import ingest as ingest_module
from orchestration.line.arrivals import LineFolders, batches, last_batch, read_report
from orchestration.line.inbox import lines
from orchestration.line.ingest import BusyLineError, ingest
from orchestration.pipeline import busy, dvc
from orchestration.pipeline.params import load_params
from tests.conftest import REPOSITORY, save_image
from tests.pipeline.conftest import command, make_workspace

KILLED = 137


def unversioned(root, paths):
    """Tests of the moving alone do without DVC; test_everything_through_the_command has it."""


@pytest.fixture
def root(tmp_path):
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """An inbox as it comes: six good images, two of them in subfolders, two doubles, three bad files."""
    folder = tmp_path_factory.mktemp("mixed")
    for number, name in enumerate(["a.png", "b.png", "2025/c.png", "2025/deep er/d.png", "e.png", "f\n.png"]):
        save_image(folder / name, number)
    shutil.copy(folder / "a.png", folder / "again.png")
    shutil.copy(folder / "a.png", folder / "2025" / "third.png")
    (folder / "notes.txt").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "2025" / "empty.png").touch()
    return folder


def arrive(root, source, line="bottle"):
    shutil.copytree(source, root / "data" / "incoming" / line, dirs_exist_ok=True)


def contents(*folders):
    """How often each content is on disk below `folders`, without the sidecars of the quarantine."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    sidecar = {path.with_name(f"{path.name}.json") for path in files}
    return Counter(file_digest(path) for path in files if path not in sidecar and not path.name.startswith("."))


def places(root, line="bottle"):
    one = LineFolders(root, line)
    return root / "data" / "incoming" / line, one.arrived, one.quarantine


def assert_settled(root, arrived_files, line="bottle"):
    """Every file that ever arrived is in exactly one of raw, quarantine and duplicates, and nothing else is there."""
    inbox, arrived, quarantine = places(root, line)
    report = read_report(root, line)
    assert Counter(one.sha256 for one in report) == arrived_files
    kept = [one for one in report if one.fate != "duplicate"]
    assert len({one.sha256 for one in kept}) == len(kept)
    assert contents(arrived, quarantine) == Counter(one.sha256 for one in kept)
    for one in report:
        assert file_digest(root / one.where) == one.sha256
    for one in kept:
        assert (root / one.where).is_relative_to(arrived if one.fate == "raw" else quarantine)
    assert not contents(inbox)
    assert not LineFolders(root, line).plan.exists()


def test_each_file_goes_where_it_belongs(root, mixed):
    arrive(root, mixed)
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.count("quarantine"), done.count("duplicate")) == (6, 3, 2)
    assert_settled(root, contents(mixed))
    fates = {one.path: (one.fate, one.reason) for one in read_report(root, "bottle")}
    assert fates["f\n.png"] == ("raw", "")
    assert fates["again.png"] == ("duplicate", "duplicate") == fates["a.png"]  # "2025/third.png" is first by name
    assert fates["2025/empty.png"] == ("quarantine", "unreadable") == fates["cut.png"]
    assert fates["notes.txt"] == ("quarantine", "not_an_image")
    reason = json.loads((root / "data/quarantine/bottle/2025/empty.png.json").read_text())
    assert reason["path"] == "2025/empty.png" and reason["detail"] == "empty.png is empty (0 bytes)"
    assert reason["sha256"] == file_digest(mixed / "2025/empty.png") and reason["line"] == "bottle"
    assert load_params(root / "params.yaml").scenario("bottle").dataset == "bottle"
    assert str(root) not in LineFolders(root, "bottle").report.read_text()


def test_a_double_is_kept_if_the_first_one_went_meanwhile(root, mixed, monkeypatch):
    """A file may be taken away between being hashed and being moved; its double is then the only one left."""
    arrive(root, mixed)
    first = root / "data/incoming/bottle/2025/third.png"  # of three with the same bytes
    write_plan = ingest_module.write_plan

    def taken_away(*plan):
        write_plan(*plan)
        first.unlink(missing_ok=True)

    monkeypatch.setattr(ingest_module, "write_plan", taken_away)
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.count("quarantine"), done.count("duplicate")) == (5, 3, 0)
    assert contents(places(root)[0]) == {file_digest(mixed / "a.png"): 2}
    ingest(root, "bottle", 0, unversioned)
    everything = contents(mixed)
    everything[file_digest(mixed / "a.png")] -= 1
    assert_settled(root, everything)


def test_a_file_that_cannot_be_moved_stays_and_stops_no_other(root, mixed, caplog):
    arrive(root, mixed)
    blocked = file_digest(mixed / "b.png")
    (LineFolders(root, "bottle").arrived / blocked[:2]).parent.mkdir(parents=True)
    (LineFolders(root, "bottle").arrived / blocked[:2]).touch()  # where the image's folder would be
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.count("quarantine"), done.count("duplicate")) == (5, 3, 2)
    assert contents(places(root)[0]) == {blocked: 1}
    assert "b.png stays in the inbox: " in caplog.text
    (LineFolders(root, "bottle").arrived / blocked[:2]).unlink()
    ingest(root, "bottle", 0, unversioned)
    assert_settled(root, contents(mixed))


def test_files_that_cannot_be_read_stay_and_are_counted(root, mixed, caplog, monkeypatch):
    """Permissions do not bind the superuser, so here reading is refused."""
    arrive(root, mixed)
    digest = examine.file_digest

    def refuse(path, *rest):
        if path.name == "b.png" and path.is_relative_to(root / "data/incoming"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return digest(path, *rest)

    monkeypatch.setattr(examine, "file_digest", refuse)
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.unreadable) == (5, 1) and "1 that cannot be read" in str(done)
    assert "b.png stays in the inbox: Permission denied; give this user the right to read it" in caplog.text
    monkeypatch.undo()
    assert ingest(root, "bottle", 0, unversioned).unreadable == 0
    assert_settled(root, contents(mixed))


@pytest.mark.parametrize("gone", ["arrived", "arrivals.jsonl"])
def test_a_line_whose_images_are_only_recorded_is_not_begun_anew(root, mixed, gone):
    """A fresh clone: git has the hashes, the images are in DVC's cache or its remote."""
    arrive(root, mixed)
    ingest(root, "bottle", 0, unversioned)
    folder = LineFolders(root, "bottle").folder
    (folder / f"{gone}.dvc").touch()
    (folder / gone).rename(root / "elsewhere")
    arrive(root, mixed)
    with pytest.raises(DataError, match=rf"{gone} is not here: `dvc checkout data/raw/bottle/{gone}.dvc` restores it"):
        ingest(root, "bottle", 0, unversioned)
    (root / "elsewhere").rename(folder / gone)
    assert ingest(root, "bottle", 0, unversioned).count("duplicate") == 11


def test_a_folder_that_cannot_be_read_hides_no_other(root, mixed, caplog):
    """Permissions do not bind the superuser, so here its path is too long."""
    arrive(root, mixed)
    inbox = root / "data/incoming/bottle"
    deep = os.open(inbox, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 240, dir_fd=deep)
        above, deep = deep, os.open("d" * 240, os.O_RDONLY, dir_fd=deep)
        os.close(above)
    os.close(deep)
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.count("quarantine"), done.count("duplicate")) == (6, 3, 2)
    assert "cannot be read" in caplog.text


def test_a_second_day_knows_the_first(root, mixed):
    arrive(root, mixed)
    ingest(root, "bottle", 0, unversioned)
    first = read_report(root, "bottle")
    assert ingest(root, "bottle", 0, unversioned).arrivals == ()
    assert read_report(root, "bottle") == first
    inbox = places(root)[0]
    shutil.copy(mixed / "cut.png", inbox / "cut again.png")  # known from the quarantine
    (inbox / "cut.png").write_bytes(b"other bytes of the same name")
    save_image(inbox / "a.png", 77)  # a new image of a known name
    (inbox / "notes.txt").mkdir()
    (inbox / "notes.txt" / "x.png").write_bytes(b"a folder now")
    done = ingest(root, "bottle", 0, unversioned)
    assert {one.path: one.fate for one in done.arrivals} == {
        "cut again.png": "duplicate", "cut.png": "quarantine", "a.png": "raw", "notes.txt/x.png": "quarantine",
    }  # fmt: skip
    assert {one.batch for one in done.arrivals} == {2} and last_batch(root, "bottle") == 2
    assert len(read_report(root, "bottle")) == len(first) + 4
    assert sorted(batches(root, "bottle").values()) == [1] * 6 + [2]
    everything = contents(mixed) + Counter(one.sha256 for one in done.arrivals)
    assert_settled(root, everything)


def test_a_double_is_only_removed_while_the_first_is_there(root, mixed):
    """Bytes that the report knows and that are gone or damaged are taken in again, not thrown away."""
    arrive(root, mixed)
    ingest(root, "bottle", 0, unversioned)
    lost, damaged = (root / one.where for one in read_report(root, "bottle") if one.path in ("b.png", "e.png"))
    whole = {path.name: path.read_bytes() for path in (lost, damaged)}
    lost.unlink()
    damaged.write_bytes(b"bit rot")
    arrive(root, mixed)
    done = ingest(root, "bottle", 0, unversioned)
    assert {one.path for one in done.arrivals if one.fate == "raw"} == {"b.png", "e.png"}
    assert {path.name: path.read_bytes() for path in (lost, damaged)} == whole
    assert not contents(places(root)[0])


def kill_at(root, number):
    """Ingest in a forked process that is killed right before its `number`-th change of the disk; its exit code."""
    child = os.fork()
    if child == 0:
        gc.disable()  # a collection would touch, and so copy, all memory of the tests
        count = 0

        def hook(event, arguments):
            nonlocal count
            changes = event in ("os.rename", "os.remove", "os.mkdir", "shutil.copyfile") or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if changes:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        os.close(2)
        try:
            ingest(root, "bottle", 0, unversioned)
        except BaseException:  # whatever it is, the child must not go on as a second pytest
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return KILLED if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def state(root):
    report = LineFolders(root, "bottle").report
    return contents(*places(root)), report.read_bytes(), (root / "params.yaml").read_bytes()


SMALL = """\
datasets: {cells: {source: image_folder, root: data/own/cells, category: cells}}
sub_models: [0]
defaults: &defaults {seed: 0, encoder: {name: efficientnet_lite2, input_size: 64, layers: [2, 3]}, suspects: 0,
  detector: {name: padim, dimensions: 100, regularisation: 0.1}, aggregation: mean, comparators: [],
  sub_model_detector: null, subsets: 1, partition: disjoint, selection: {policy: mad, k: 2.5}, rounds: 1,
  patch_rejection: 0, review: data/review/none.csv,
  sensitivity: {images: 0, sizes: auto, contrasts: [0.2]},
  calibration: {target_fpr: 0.01, folds: 0, bound: robust, unsure: true, min_area: 0.0, burst: 1}}
scenarios: {}
arrival: {stable_seconds: 0, min_new_images: 1, cron: "0 2 * * *"}
runtime: {device: cpu, processes: 1, threads: 0, batch_size: 16, memory_limit: 0, feature_cache: null}
promotion:
  probe_size: 200
  min_agreement: 0.4
  min_spread: 0.01
  min_separation: 0.6
  max_separation_loss: 0.05
  min_threshold_reach: 0.3
  max_threshold_reach: 5.0
  threshold_slack: 1.0
  max_missed: 0.0
  sensitivity_images: 12
  max_sensitivity_loss: 0.2
  min_auroc: 0.5
  max_auroc_loss: 0.02
  min_kept_share: 0.15
  max_kept_change: 0.2
  max_alarms: 0.2
  max_image_shift: 2.0
  max_feature_shift: 0.4
"""  # quick to read; this is done hundreds of times


@pytest.mark.parametrize("other_file_system", [False, True])
def test_killed_before_every_change_of_the_disk(root, mixed, tmp_path, monkeypatch, other_file_system):
    (root / "params.yaml").write_text(SMALL)
    if other_file_system:
        memory = Path("/dev/shm")
        if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is no second file system")
        elsewhere = memory / f"llbnad-{os.getpid()}"
        elsewhere.mkdir()
        (root / "data").mkdir()
        (root / "data" / "incoming").symlink_to(elsewhere)
    pristine = (root / "params.yaml").read_bytes()
    try:
        wanted = None
        for number in range(1, 300, 3 if other_file_system else 1):
            for folder in (*places(root)[1:], LineFolders(root, "bottle").folder):
                shutil.rmtree(folder, ignore_errors=True)
            (root / "params.yaml").write_bytes(pristine)
            arrive(root, mixed)
            killed = kill_at(root, number)
            assert killed in (0, KILLED), f"failed at change {number}"
            # at this moment everything is somewhere
            assert set(contents(*places(root))) >= set(contents(mixed))
            again = random.Random(number).randint(1, 20)
            if killed:  # and killed again while it recovers, then left alone
                assert kill_at(root, again) in (0, KILLED)
                assert set(contents(*places(root))) >= set(contents(mixed))
            ingest(root, "bottle", 0, unversioned)
            assert_settled(root, contents(mixed))
            wanted = wanted or state(root)
            assert state(root) == wanted, f"killed at change {number}, then {again}"
            if not killed:
                break
        assert number > 25  # the loop did kill
    finally:
        if other_file_system:
            shutil.rmtree(elsewhere)


def test_what_dvc_could_not_record_is_recorded_next_time(root, mixed):
    arrive(root, mixed)

    def refuse(root, paths):
        raise dvc.DvcError("no space left")

    with pytest.raises(dvc.DvcError, match="no space left"):
        ingest(root, "bottle", 0, refuse)
    assert set(contents(*places(root))) == set(contents(mixed))
    told = []
    done = ingest(root, "bottle", 0, lambda root, paths: told.extend(paths))
    assert told == ["data/raw/bottle/arrived", "data/raw/bottle/arrivals.jsonl"]
    assert len(done.arrivals) == 11 and {one.batch for one in done.arrivals} == {1}
    assert_settled(root, contents(mixed))


def give_up_soon(monkeypatch):
    """Whoever finds others at work tries twice; returns the list of waits, which take no time."""
    waited = []
    monkeypatch.setattr(busy, "ATTEMPTS", 2)
    monkeypatch.setattr(busy, "time", SimpleNamespace(sleep=waited.append))
    return waited


def test_data_that_another_dvc_works_with_is_waited_for(tmp_path, monkeypatch):
    folder = make_workspace(tmp_path / "workspace", {}, {})
    save_image(folder / "data" / "raw" / "bottle" / "a.png")
    lock = folder / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    path = str((folder / "data/raw/bottle/a.png").resolve())
    lock.write_text(json.dumps({"read": {path: [{"pid": os.getpid(), "cmd": "dvc repro"}]}}))
    waited = give_up_soon(monkeypatch)
    with pytest.raises(busy.BusyError, match="another process works on the same files"):
        dvc.add(folder, ["data/raw/bottle/a.png"])
    assert waited == [busy.SECONDS]
    lock.unlink()
    dvc.add(folder, ["data/raw/bottle/a.png"])
    assert (folder / "data/raw/bottle/a.png.dvc").exists()


def test_one_ingest_of_a_line_at_a_time(root, mixed, monkeypatch):
    arrive(root, mixed)
    waited = give_up_soon(monkeypatch)

    def meanwhile(root, paths):
        with pytest.raises(BusyLineError, match="another ingest of line bottle"):
            ingest(root, "bottle", 0, unversioned)

    ingest(root, "bottle", 0, meanwhile)
    assert len(waited) == 1
    assert_settled(root, contents(mixed))


def test_files_that_are_not_complete_are_left(root, tmp_path):
    inbox = places(root)[0]
    for number, name in enumerate(["done.png", "x.png.part", "y.tmp", ".hidden.png", ".folder/z.png"]):
        save_image(tmp_path / "made.png", number)
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "made.png", inbox / name)
    (inbox / "link.png").symlink_to(tmp_path / "made.png")
    os.utime(inbox / "done.png", (0, 0))  # an old modification time says nothing: it was copied just now
    assert ingest(root, "bottle", 3600, unversioned).waiting == 1
    done = ingest(root, "bottle", 0, unversioned)
    assert [one.path for one in done.arrivals] == ["done.png"]
    assert {path.name for path in inbox.iterdir()} == {"x.png.part", "y.tmp", ".hidden.png", ".folder", "link.png"}


def test_a_file_that_changes_after_it_was_hashed_stays(root, mixed, monkeypatch):
    """The writer was slow after all: what was hashed is not what lies there, so it is looked at again."""
    arrive(root, mixed)
    inbox = places(root)[0]
    module = ingest_module

    def plan_then_write(*arguments):
        planned = original(*arguments)
        save_image(inbox / "b.png", 99)
        (inbox / "e.png").unlink()
        return planned

    original = module._plan
    monkeypatch.setattr(module, "_plan", plan_then_write)
    done = ingest(root, "bottle", 0, unversioned)
    assert not {"b.png", "e.png"} & {one.path for one in done.arrivals}
    monkeypatch.undo()
    done = ingest(root, "bottle", 0, unversioned)
    assert [(one.path, one.fate) for one in done.arrivals] == [("b.png", "raw")]
    assert not contents(inbox)


def test_odd_names_survive(root, tmp_path):
    inbox = places(root)[0]
    inbox.mkdir(parents=True)
    good = save_image(tmp_path / "made.png").read_bytes()
    names = [b"L\xc3\xb6tstelle \xe2\x80\x94 1.PNG", b"not utf-8 \xff.png", b"quote'\"`$(x).png", b"n" * 250 + b".png",
             b"a\tb\nc.jpeg", b"no suffix", b"-rf", b"x.json"]  # fmt: skip
    for number, name in enumerate(names):
        for folder, content in ((b"good", good + bytes([number])), (b"bad", b"bad %d" % number)):
            path = Path(os.fsdecode(b"/".join([os.fsencode(inbox), folder, name])))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)  # bytes behind the end of a PNG belong to nobody
    before = contents(inbox)
    done = ingest(root, "bottle", 0, unversioned)
    assert (done.count("raw"), done.count("quarantine")) == (len(names), len(names))
    assert_settled(root, before)
    reasons = [
        json.loads(path.read_text())["path"] for path in places(root)[2].rglob("*.json") if path.stat().st_size > 9
    ]
    assert sorted(os.fsencode(path) for path in reasons) == sorted(b"bad/" + name for name in names)


@pytest.mark.parametrize("line", ["two words", "a-b", "a.b", "Löten"])
def test_a_folder_that_cannot_be_a_line_is_said_so(root, mixed, line):
    arrive(root, mixed, line)
    assert "must be letters, digits and '_'" in lines(root)[line]
    with pytest.raises(DataError, match="rename the folder"):
        ingest(root, line, 0, unversioned)
    assert contents(root / "data" / "incoming" / line) == contents(mixed)


def test_a_line_without_one_good_image_is_no_scenario_yet(root):
    inbox = places(root)[0]
    inbox.mkdir(parents=True)
    (inbox / "x.png").write_bytes(b"bad")
    before = (root / "params.yaml").read_bytes()
    assert ingest(root, "bottle", 0, unversioned).count("quarantine") == 1
    assert (root / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(("kind", "options"), [("png", {}), ("jpeg", {"quality": 95}), ("bmp", {}), ("tiff", {})])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_every_kind_of_camera_file_is_taken_in_and_read_alike(root, kind, options, mode):
    if (kind == "jpeg" and mode in ("RGBA", "I;16")) or (kind == "bmp" and mode == "I;16"):
        pytest.skip("there is no such file")
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint16), (64, 1))
    image = Image.fromarray(grey * 257) if mode == "I;16" else Image.fromarray(grey.astype(np.uint8)).convert(mode)
    inbox = places(root)[0]
    inbox.mkdir(parents=True)
    image.save(inbox / "image.dat", format=kind, **options)  # the content decides, not the name
    (arrival,) = ingest(root, "bottle", 0, unversioned).arrivals
    assert arrival.fate == "raw" and Path(arrival.where).suffix == {"jpeg": ".jpg", "tiff": ".tif"}.get(
        kind, f".{kind}"
    )
    pixels = np.asarray(load_rgb(root / arrival.where)).astype(int)
    assert np.abs(pixels - grey[:, :, None]).max() <= (3 if kind == "jpeg" else 0)


def test_hash_folders_are_not_read_as_labels(root, tmp_path):
    """All images are unlabelled and for training, whatever their names or the inbox's folders said."""
    inbox = places(root)[0]
    for number in range(40):
        save_image(inbox / ("bad" if number % 2 else "test/good") / f"{number}_mask.png", number, (8, 8))
    ingest(root, "bottle", 0, unversioned)
    folder = places(root)[1]
    scan, _ = read_source(ImageFolderDataset(root=str(folder), category="bottle"), folder)
    assert len(scan.manifest) == 40 and len(scan.rejected) == 0
    assert scan.manifest[["anomaly_class", "split", "mask_path"]].isna().all(axis=None)
    assert set(scan.manifest["image_id"]) == set(batches(root, "bottle"))


def test_everything_through_the_command(tmp_path, mixed, cells):
    """With DVC: tracked, idempotent, and dvc.yaml has the new line's stages."""
    folder = make_workspace(tmp_path / "workspace", {"cells": cells}, {})
    for line in ("bottle", "cap", "bad name"):
        arrive(folder, mixed, line)
    done = command(folder, ["python", "-m", "orchestration", "ingest"])
    assert done.returncode == 0, done.stderr
    assert "bottle: 6 new images, 3 quarantined, 2 duplicates; 0 files not complete yet" in done.stdout
    assert "bad name: skipped, its name 'bad name' must be letters" in done.stderr
    tracked = yaml.safe_load((folder / "data/raw/bottle/arrived.dvc").read_text())["outs"][0]
    assert tracked["nfiles"] == 6
    assert (folder / "data/raw/bottle/arrivals.jsonl.dvc").is_file()
    shown = command(folder, ["git", "status", "--porcelain", "--untracked-files=all"]).stdout
    assert sorted(line[3:] for line in shown.splitlines() if ".dvc/" not in line) == [
        *(f"data/raw/{line}/{name}.dvc" for line in ("bottle", "cap") for name in ("arrivals.jsonl", "arrived")),
        "data/review/bottle.csv",
        "data/review/cap.csv",
        "params.yaml",
    ]  # fmt: skip
    graph = dvc.stage_graph(folder)
    assert graph["raw@bottle"] == {"code"} and "evaluation@cap" in graph

    before = (folder / "data/raw/bottle/arrived.dvc").read_bytes()
    again = command(folder, ["python", "-m", "orchestration", "ingest", "bottle"])
    assert "bottle: 0 new images" in again.stdout
    assert (folder / "data/raw/bottle/arrived.dvc").read_bytes() == before
    save_image(folder / "data/incoming/bottle/new.png", 1234)
    command(folder, ["python", "-m", "orchestration", "ingest", "bottle"])
    tracked = yaml.safe_load((folder / "data/raw/bottle/arrived.dvc").read_text())["outs"][0]
    assert tracked["nfiles"] == 7

    unknown = command(folder, ["python", "-m", "orchestration", "ingest", "moon"])
    assert unknown.returncode == 2 and "error: no folder of ['moon']" in unknown.stderr
    stage = command(folder, ["dvc", "repro", "raw@bottle"])
    assert stage.returncode == 0, stage.stderr
    manifest = pd.read_parquet(folder / "data/raw/bottle/manifest.parquet")
    assert set(manifest["image_id"]) == set(batches(folder, "bottle"))
