"""People's verdicts: the content of a review file, and its effect on the purified set and on the labels."""

import pandas as pd
import pytest

from llbnad.data.manifest import is_anomalous
from llbnad.errors import DataError
from llbnad.purification.purify import Purified
from llbnad.purification.verdicts import (
    excluded,
    override,
    read_verdicts,
    verdict_summary,
    with_verdicts,
    write_verdicts,
)
from tests.conftest import REPOSITORY, made_manifest

A, B, C, D = (letter * 64 for letter in "abcd")


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "line.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_the_repository_s_empty_file_holds_no_verdict():
    assert read_verdicts(REPOSITORY / "data" / "review" / "none.csv") == {}


def test_written_and_read_back_as_spreadsheets_do(tmp_path):
    verdicts = {B: "defect", A: "normal", C: "exclude"}
    write_verdicts(verdicts, tmp_path / "out.csv")
    assert read_verdicts(tmp_path / "out.csv") == verdicts
    assert (tmp_path / "out.csv").read_text().splitlines()[1] == f"{A},normal"
    excel = written(tmp_path, f'image_id,verdict\r\n"{A}",normal\r\n\r\n{B}, defect\r\n', "utf-8-sig")
    assert read_verdicts(excel) == {A: "normal", B: "defect"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"image_id,verdict\n{A},normal\n{B},deffect\n", "line.csv:3: verdict is 'deffect'; expected one of normal"),
        (f"image_id,verdict\n{A},normal\n{B},defect\n{A},defect\n", f"line.csv:4: image_id {A} is in line 2 already"),
        ("image_id,verdict\ncell_12.png,normal\n", "line.csv:2: image_id is 'cell_12.png'; expected 64 hex digits"),
        (f"image_id,verdict\n{A}\n", "line.csv:2: 1 columns; expected 2"),
        ("id;verdict\n", "line.csv:1: the header is 'id;verdict'; expected 'image_id,verdict'"),
        ("", "line.csv:1: the header is ''"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_value(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        read_verdicts(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"review file .*gone\.csv is missing"):
        read_verdicts(tmp_path / "gone.csv")
    (tmp_path / "line.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_verdicts(tmp_path / "line.csv")


def test_people_overrule_the_policy_and_others_stay():
    purified = Purified((A, B), (C,), 0.5)
    assert override(purified, {}) == purified
    assert override(purified, {A: "defect", C: "normal", D: "defect"}) == Purified((B, C), (A,), 0.5)
    assert override(purified, {A: "normal", C: "defect"}) == purified
    assert override(purified, {A: "exclude", C: "exclude"}) == Purified((B,), (), 0.5)
    with pytest.raises(DataError, match="leave no image to train on"):
        override(purified, {A: "defect", B: "defect"})


def test_verdicts_become_labels_only_where_there_is_none():
    manifest = made_manifest(3, 1)
    ids = manifest["image_id"].tolist()
    unlabelled = manifest.assign(anomaly_class=None)
    verdicts = {ids[0]: "normal", ids[1]: "defect", ids[2]: "exclude", D: "defect"}
    labelled = with_verdicts(unlabelled, verdicts)
    assert labelled["image_id"].tolist() == [ids[0], ids[1], ids[3]]
    assert is_anomalous(labelled).tolist() == [False, True, pd.NA]
    known = with_verdicts(manifest, {ids[0]: "defect"})
    assert known["anomaly_class"].tolist() == manifest["anomaly_class"].tolist()
    assert excluded(verdicts) == [ids[2]]


def test_summary_counts_what_was_said_and_what_it_changed():
    manifest = made_manifest(4, 0)
    first, second, third, fourth = manifest["image_id"]
    verdicts = {first: "normal", second: "defect", third: "exclude", D: "normal"}
    by_policy = Purified((first, second, third), (fourth,), 1.0)
    assert verdict_summary(verdicts, manifest, by_policy, override(by_policy, verdicts)) == {
        "n_verdict_normal": 1,
        "n_verdict_defect": 1,
        "n_verdict_exclude": 1,
        "n_verdict_elsewhere": 1,
        "n_overruled": 1,
    }
