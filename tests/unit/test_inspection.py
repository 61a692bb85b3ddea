"""Live scoring: each image once, whatever happens to the process, the files and the model."""

import csv
import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from llbnad.errors import DataError, ModelMissingError
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from llbnad.utils.files import file_digest
from orchestration.inspection import inspector as inspecting
from orchestration.inspection.champion import Champion, model_finder
from orchestration.inspection.inspector import Inspector, Settings, predictions
from orchestration.inspection.ledger import RECORD, VIEW, Ledger, LedgerRow, seen_in
from orchestration.inspection.watching import WatchedError, is_watched, only_one, watch
from orchestration.line.inbox import FileMark
from tests.conftest import save_image


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture(scope="module")
def champion(calibrated) -> Champion:
    return Champion(model_finder(str(calibrated)))


@pytest.fixture
def place(tmp_path) -> Settings:
    (tmp_path / "camera").mkdir()
    return Settings(tmp_path / "camera", stable_seconds=0, late_seconds=0)


def inspect(settings: Settings, champion: Champion, looks: int = 2) -> list:
    """Start anew, look as often as it takes, and return what was scored."""
    with closing(Ledger(settings.images.parent / "out")) as ledger:
        one = Inspector(settings, ledger, champion)
        return [row for _ in range(looks) for row in one.look()]


def recorded(settings: Settings) -> list:
    with closing(Ledger(settings.images.parent / "out")) as ledger:
        return list(ledger.rows())


def test_each_image_gets_a_row_and_a_picture_and_a_bad_one_a_reason(place, champion, few_cells):
    manifest, root = few_cells
    for number, path in enumerate(manifest["path"][:3]):
        shutil.copy(root / path, place.images / f"{number}.png")
    (place.images / "part").mkdir()
    save_image(place.images / "part" / "large.png", size=(2000, 40))
    (place.images / "bad.png").write_bytes(b"no image")
    (place.images / "0.png.tmp").write_bytes(b"is written")
    rows = {row.path: row for row in inspect(place, champion)}
    assert sorted(rows) == ["0.png", "1.png", "2.png", "bad.png", "part/large.png"]
    (expected,) = Predictor(Model.load(champion.find().file())).predict([place.images / "1.png"])
    threshold = champion.current.threshold
    found = rows["1.png"]
    assert found.score == pytest.approx(expected.score, rel=1e-5) and found.threshold == threshold.value
    assert found.label == threshold.labels(np.array([found.score]))[0] and found.model == champion.current.name
    assert found.sha256 == file_digest(place.images / "1.png")
    out = place.images.parent / "out"
    with Image.open(out / rows["part/large.png"].picture) as picture:
        assert picture.size == (1600, 32)
    bad = rows["bad.png"]
    assert (bad.score, bad.label, bad.picture) == (None, "", "") and bad.error.startswith("bad.png ")
    with (out / VIEW).open(newline="") as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [row.path for row in recorded(place)]
    assert inspect(place, champion) == [] and len(recorded(place)) == 5


def test_rows_and_pictures_show_the_regions_of_predict(place, calibrated, model_files, few_cells):
    manifest, root = few_cells
    own = Champion(model_finder(str(calibrated)), target_fpr=0.5)
    for number, path in enumerate(manifest["path"]):
        shutil.copy(root / path, place.images / f"{number:02d}.png")
    rows = {row.path: row for row in inspect(place, own)}
    files, model = sorted(place.images.iterdir()), own.current.predictor.model
    expected = Predictor(model).predict(files, model.threshold.at(0.5), model.pixel_threshold.at(0.5))
    areas = []
    for path, one in zip(files, expected, strict=True):
        row = rows[path.name]
        largest = max(one.regions, key=lambda region: region.area, default=None)
        assert row.regions == len(one.regions) and row.label == one.label
        assert row.largest_area == (largest.area if largest else None)
        assert row.largest_box == (" ".join(map(str, largest.box)) if largest else "")
        with Image.open(place.images.parent / "out" / row.picture) as picture:
            red, green, blue = np.asarray(picture.convert("RGB")).astype(int).transpose(2, 0, 1)
        assert ((green > 180) & (red < 90) & (blue < 90)).any() == bool(one.regions)
        areas += [region.area for region in one.regions]
    assert areas and 0 < sum(bool(row.regions) for row in rows.values()) < len(files)
    assert recorded(place) == list(rows.values())

    only_largest = Champion(model_finder(str(calibrated)), target_fpr=0.5, min_area=max(areas))
    found = predictions(only_largest.current, [path.read_bytes() for path in files])
    assert sum(len(one.regions) for one in found) == areas.count(max(areas))
    with pytest.raises(DataError, match="no pixel threshold"):
        Champion(model_finder(str(model_files["patchcore"])), min_area=5)


FIRST_TABLE = """
CREATE TABLE images (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, scored TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
  model TEXT NOT NULL, score REAL, threshold REAL, label TEXT NOT NULL, picture TEXT NOT NULL, error TEXT NOT NULL);
INSERT INTO images VALUES (1, 'a', '2026-01-01T00:00:00+00:00', 'a.png', '00', 'm', 1.5, 1.0, 'defect', '', '');
"""


def test_a_record_without_regions_keeps_its_rows_and_gets_the_columns(tmp_path):
    with closing(sqlite3.connect(tmp_path / RECORD)) as first:
        first.executescript(FIRST_TABLE)
    old = LedgerRow("a", "2026-01-01T00:00:00+00:00", "a.png", "00", "m", 1.5, 1.0, "defect", "", "")
    new = replace(old, id="b", regions=2, largest_area=310, largest_box="1 2 31 10")
    with closing(Ledger(tmp_path)) as ledger:
        assert list(ledger.rows()) == [old] and (old.regions, old.largest_box) == (None, "")
        ledger.add(new, "b.png", FileMark(1, 1, 1), message=True)
        assert '"largest_area": 310' in ledger.messages(1.0)[0].body
    with closing(Ledger(tmp_path)) as ledger:
        assert list(ledger.rows()) == [old, new]


def test_a_name_with_new_content_is_new_and_old_content_is_not(place, champion):
    path = save_image(place.images / "latest.png", 1)
    assert len(inspect(place, champion)) == 1
    save_image(path, 2)
    shutil.copy(path, place.images / "other.png")
    assert [row.path for row in inspect(place, champion)] == ["latest.png", "other.png"]
    path.unlink()
    assert inspect(place, champion) == []
    save_image(path, 2)  # the same image under the same name
    assert inspect(place, champion) == [] and len(recorded(place)) == 3
    assert seen_in(place.images.parent / "out").keys() == {"latest.png", "other.png"}


def test_a_file_that_is_being_written_is_no_bad_image(place, champion):
    slow = replace(place, late_seconds=3600)
    whole = save_image(place.images.parent / "whole.png").read_bytes()
    growing = place.images / "growing.png"
    growing.write_bytes(whole[:-40])
    with closing(Ledger(place.images.parent / "out")) as ledger:
        one = Inspector(slow, ledger, champion)
        assert one.look() == one.look() == [] and one.waiting == 1
        growing.write_bytes(whole)
        one.later.clear()  # a second later
        one.look()
        (row,) = one.look()
    assert (row.path, row.error) == ("growing.png", "")


POINTS = {
    "before the picture": (inspecting, "heat_picture"),
    "before the row": (Ledger, "add"),
    "within the row's transaction": (Ledger, "_see"),
    "after the row": (Ledger, "append_view"),
    "before the copy": (inspecting, "file_digest"),
    "after the copy": (Ledger, "handed_on"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_nothing_and_repeats_nothing(place, champion, monkeypatch, point):
    settings = replace(place, inbox=place.images.parent / "inbox", messages=True)
    for seed in range(3):
        save_image(place.images / f"{seed}.png", seed)
    owner, name = POINTS[point]
    original, calls = getattr(owner, name), []

    def killed_the_second_time(*arguments):
        calls.append(point)
        if len(calls) == 2:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed_the_second_time)
        with pytest.raises(Killed):
            inspect(settings, champion)
    inspect(settings, champion)
    assert sorted(row.path for row in recorded(settings)) == ["0.png", "1.png", "2.png"]
    arrived = sorted(file_digest(path) for path in settings.inbox.iterdir())
    assert arrived == sorted(file_digest(path) for path in place.images.iterdir())
    with closing(Ledger(place.images.parent / "out")) as ledger:
        assert ledger.undelivered() == 3 and ledger.for_training() == []
    with (place.images.parent / "out" / VIEW).open(newline="") as stream:
        assert sorted(row["path"] for row in csv.DictReader(stream)) == ["0.png", "1.png", "2.png"]


def test_another_model_is_followed_and_a_missing_one_stops_nothing(place, calibrated, tmp_path, capsys):
    followed = tmp_path / "model.safetensors"
    with pytest.raises(ModelMissingError):
        Champion(model_finder(str(followed)))
    shutil.copy(calibrated, followed)
    own = Champion(model_finder(str(followed)))
    save_image(place.images / "a.png", 1)
    (first,) = inspect(place, own)
    assert not own.refresh()
    model = Model.load(followed)
    replace(model, threshold=model.threshold.at(0.05)).save(followed)
    assert own.refresh()
    save_image(place.images / "b.png", 2)
    (second,) = inspect(place, own)
    assert first.model != second.model and first.threshold != second.threshold
    followed.unlink()
    assert not own.refresh() and not own.refresh()
    assert capsys.readouterr().err.count("goes on scoring") == 1
    save_image(place.images / "c.png", 3)
    assert inspect(place, own)[0].model == second.model


def test_what_breaks_on_many_images_is_found_one_by_one(place, champion, monkeypatch):
    for seed in range(3):
        save_image(place.images / f"{seed}.png", seed)
    odd = (place.images / "1.png").read_bytes()
    predict = Predictor.predict

    def breaking(self, sources, *rest):
        if odd in sources:
            raise RuntimeError("out of memory")
        return predict(self, sources, *rest)

    monkeypatch.setattr(Predictor, "predict", breaking)
    errors = {row.path: row.error for row in inspect(place, champion)}
    assert errors == {"0.png": "", "1.png": "RuntimeError: out of memory", "2.png": ""}


def test_a_long_name_goes_to_training_and_a_picture_that_fails_costs_no_score(place, champion, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(inspecting, "heat_picture", fail)
    settings = replace(place, inbox=place.images.parent / "inbox")
    save_image(place.images / f"{'n' * 248}.png")
    (row,) = inspect(settings, champion)
    assert row.score is not None and row.picture == ""
    assert [path.name for path in settings.inbox.iterdir()] == [f"{row.id}.png"]


def test_a_damaged_record_is_one_clear_error(tmp_path):
    (tmp_path / RECORD).write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match=f"{RECORD} is no record of scored images .*: move it away"):
        Ledger(tmp_path)


def test_the_watcher_survives_a_full_disk_and_is_alone(place, champion, monkeypatch, capsys):
    monkeypatch.setattr("orchestration.inspection.watching.RETRY_SECONDS", 0)
    monkeypatch.setattr("orchestration.inspection.watching.LOOK_SECONDS", 0)
    save_image(place.images / "a.png")
    out, stop, told = place.images.parent / "out", threading.Event(), []
    original, failures = Ledger.add, iter([OSError(28, "No space left on device")])

    def add(*arguments):
        for failure in failures:
            raise failure
        return original(*arguments)

    monkeypatch.setattr(Ledger, "add", add)
    assert not is_watched(out)
    with only_one(out), closing(Ledger(out)) as ledger:
        assert is_watched(out)
        with pytest.raises(WatchedError, match="another `watch`"), only_one(out):
            pass
        watch(Inspector(place, ledger, champion), stop, lambda row: (told.append(row.path), stop.set()))
    assert told == ["a.png"] and "No space left" in capsys.readouterr().err
    assert not is_watched(out)
