"""Manifest files as people, spreadsheets and programs write them: what is read, and what is said of the rest."""

import json
import re
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

import orchestration
from llbnad.config import Files, InjectedNoise, ManifestDataset
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import read_manifest
from llbnad.data.masks import split_masks
from llbnad.data.sources import read_source
from llbnad.data.sources.given import read_given
from llbnad.errors import DataError
from orchestration.stages import raw
from tests.conftest import REPOSITORY, llbnad
from tests.unit.test_folder_inputs import mask, photo, reasons, save

PLAIN = "path,label,split,mask,group\na.png,good,train,,1\nb.png,scratch,test,masks/b.png,2\nc.png,,,,\n"


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(["a.png", "b.png", "c.png", "sub/d.png", "ä 1.png"]):
        save(tmp_path / name, photo(seed))
    for seed, name in enumerate(["masks/b.png", "masks/b2.png"]):
        save(tmp_path / name, mask(seed))
    save(tmp_path.parent / "outside.png", photo(9))
    return tmp_path


def read(folder, content, file="parts.csv"):
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(ManifestDataset(root=str(folder), file=file, category="part"), folder)[0]


def said(found):
    """Return label, split, masks and group of each image."""
    columns = ("anomaly_class", "split", "mask_path", "sample_id")
    rows = found.manifest.astype(object).where(found.manifest.notna(), None).to_dict("records")
    return {row["path"]: tuple(row[column] for column in columns) for row in rows}


EXPECTED = {
    "a.png": ("OK", "train", None, "1"),
    "b.png": ("scratch", "test", "masks/b.png", "2"),
    "c.png": (None, None, None, "c.png"),
}
OBJECTS = [
    {"path": "a.png", "label": "good", "split": "train", "group": 1, "mask": None},
    {"path": "b.png", "label": "scratch", "split": "test", "mask": ["masks/b.png"], "group": "2"},
    {"path": "c.png", "label": float("nan")},
]
FORMS = {
    "plain": ("parts.csv", PLAIN),
    "byte-order mark": ("parts.csv", PLAIN.encode("utf-8-sig")),
    "UTF-16": ("parts.csv", PLAIN.encode("utf-16")),
    "semicolons": ("parts.csv", PLAIN.replace(",", ";")),
    "tabs": ("parts.tsv", PLAIN.replace(",", "\t")),
    "sep=": ("parts.csv", "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n")),
    "backslashes": ("parts.csv", PLAIN.replace("masks/", ".\\masks\\")),
    "upper case and spaces": ("parts.csv", PLAIN.replace("path,label", " Path , LABEL").replace("good", " GOOD ")),
    "empty rows and cells": ("parts.csv", PLAIN + ",,,,\n\n   \n"),
    "NaN": ("parts.csv", PLAIN.replace("c.png,,,,", "c.png,NaN,nan,None,NA")),
    "short rows": ("parts.csv", PLAIN.replace("c.png,,,,", "c.png")),
    "synonyms": ("parts.csv", PLAIN.replace("good,train", "i.O.,Training").replace("test", "TEST")),
    "no line end": ("parts.csv", PLAIN.strip()),
    "quotes": ("parts.csv", PLAIN.replace("a.png", '"a.png"').replace("scratch", '"scratch"')),
    "JSON lines": ("parts.jsonl", "\n".join(map(json.dumps, OBJECTS))),
    "a JSON list": ("parts.json", json.dumps(OBJECTS, indent=1)),
    "a JSON list in one line": ("parts.jsonl", json.dumps(OBJECTS)),
    "JSON with BOM": ("parts.ndjson", "\r\n".join(map(json.dumps, OBJECTS)).encode("utf-8-sig")),
}  # fmt: skip


@pytest.mark.parametrize(("file", "content"), FORMS.values(), ids=FORMS)
def test_every_form_says_the_same(folder, file, content):
    found = read(folder, content, file)
    assert said(found) == EXPECTED
    assert found.rejected.empty and not found.doubts
    assert found.notes[0] == f"{file}: 3 rows, 3 images"
    assert [note.lower().split(":")[1] for note in found.notes[1:]] == [
        " 1 images, unlabelled", *sorted([" 1 images, train, normal", " 1 images, test, defects"], reverse=True)
    ]  # fmt: skip


ROWS = {  # one bad row between good ones → path and reason of what is listed, and what is said of it
    "missing": ("gone.png,good", "gone.png", "missing", "row 3: .*gone.png is not a file"),
    "a folder": ("sub,good", "sub", "missing", "row 3: .*sub is not a file"),
    "no path": (",good", "parts.csv", "bad_row", "row 3: path is empty"),
    "NaN as path": ("NaN,good", "parts.csv", "bad_row", "row 3: path is empty"),
    "outside": ("../outside.png,good", "../outside.png", "bad_row", "row 3: path is '../outside.png'; expected a file"),
    "a way round": ("sub/../../outside.png,", "sub/../../outside.png", "bad_row", "row 3: .*expected a file"),
    "absolute": ("/etc/passwd,good", "/etc/passwd", "bad_row", "row 3: path is '/etc/passwd'; expected a file inside"),
    "a drive": ("C:\\b.png,good", "C:\\b.png", "bad_row", "row 3: .*expected a file inside"),
    "NUL in a label": ("b.png,o\0k", "b.png", "bad_row", "row 3: label is 'o.x00k'; expected a text without control"),
    "a label turned round": ("b.png,\u202eok", "b.png", "bad_row", "row 3: label is .*without control characters"),
    "NUL": ("b\0.png,good", "b\0.png", "bad_row", "row 3: .*expected a file inside"),
    "unknown split": ("b.png,good,tset", "b.png", "bad_row", "row 3: split is 'tset'; expected train, test"),
    "a number as label": ("b.png,1", "b.png", "bad_row", "row 3: label is '1', which may mean either; expected good"),
    "true as label": ("b.png,TRUE", "b.png", "bad_row", "row 3: label is 'TRUE', which may mean either"),
    "too many cells": ("b.png,a,test,,2,x", "b.png", "bad_row", "row 3: has 6 cells, the header 5"),
    "held out": ("b.png,good,val", "b.png", "held_out", "row 3: images for validation are neither trained"),
    "no image": ("parts.csv,good", "parts.csv", "unreadable", "parts.csv is not an image"),
    "a mask outside": ("b.png,scratch,,../m.png", "b.png", "bad_row", "row 3: mask is '../m.png'; expected a file"),
    "text after a quote": ('"b.png"x,good', "parts.csv", "bad_row", "row 3: cannot be read: "),
    "a contradiction": ("a.png,scratch", "a.png", "bad_row", "rows 2, 3 contradict .*label is OK and scratch"),
    "the same again": ("a.png,good", "a.png", "duplicate", "rows 2, 3 say the same; the image is taken once"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "path", "reason", "detail"), ROWS.values(), ids=ROWS)
def test_a_bad_row_is_listed_with_its_number_and_stops_no_other(folder, row, path, reason, detail):
    found = read(folder, f"path,label,split,mask,group\na.png,good\n{row}\nc.png,good\n")
    expected = {"c.png": "OK"} | ({} if reason == "bad_row" and path == "a.png" else {"a.png": "OK"})
    assert {path: label for path, (label, *_) in said(found).items()} == expected
    assert reasons(found) == {path: reason}
    assert re.search(detail, found.rejected["detail"].item())


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("parts.csv", "file,label\na.png,good\n", r"parts.csv has no column path; its first line is 'file,label'"),
        ("parts.csv", "a.png,good\nb.png,bad\n", r"its first line is 'a.png,good': expected a header"),
        ("parts.csv", "", "has no column path"),
        ("parts.csv", "path,label,Label\n", "has the column label twice"),
        ("parts.csv", "path,label\nä.png,good\n".encode("cp1252"), "parts.csv, line 2: not UTF-8; save it as UTF-8"),
        ("parts.csv", 'path,label\n"a.png,good\nb.png,bad\n', "row 2: a quote is opened and never closed"),
        ("parts.csv", "path\n", "no image under .* is usable"),
        ("parts.csv", "path\nx.png\ny.png\n", r"no image under .* row 2: .*x.png is not a file; row 3: .*y.png"),
        ("parts.json", '{"images": [{"path": "a.png"}]}', "has no key path in any of its lines; expected one JSON"),
        ("parts.jsonl", '{"file": "a.png"}', "has no key path in any of its lines"),
    ],
)  # fmt: skip
def test_a_file_that_says_nothing_is_one_error(folder, file, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(folder, content, file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("[1]", "row 2: is not a JSON object"),
        ('{"path": 3}', "row 2: path is 3; expected a text"),
        ('{"path": "b.png", "label": true}', "row 2: label is True; expected a text"),
        ('{"path": "b.png", "label": {"a": 1}}', "row 2: label is .*; expected a text"),
        ('{"path": "b.png", "Path": "c.png"}', "row 2: has the key path twice"),
        ('{"path": "b\\ud800.png"}', "row 2: path is .*; expected a text"),
        ('{"path": "b.png", "mask": [["x"]]}', "row 2: mask is .*; expected a text"),
        ('{"path": "b.png"', "row 2: is not a JSON object"),
        ("[" * 100_000, "row 2: is not a JSON object"),
    ],
)
def test_a_line_of_another_kind_is_listed(folder, line, detail):
    found = read(folder, f'{{"path": "a.png"}}\n{line}\n{{"path": "c.png"}}', "parts.jsonl")
    assert set(said(found)) == {"a.png", "c.png"}
    assert found.rejected["detail"].str.match(detail).tolist() == [True]


def test_several_masks_of_one_image(folder):
    one_cell = read(folder, "path,label,mask\nb.png,x,masks/b.png|masks/b2.png\n")
    rows = read(folder, "path,label,mask\nb.png,x,masks/b.png\nb.png,x,masks/b2.png\n")
    json_list = read(folder, json.dumps({"path": "b.png", "mask": ["masks/b.png", "masks/b2.png"]}), "parts.jsonl")
    for found in (one_cell, rows, json_list):
        assert split_masks(said(found)["b.png"][2]) == ["masks/b.png", "masks/b2.png"]
        assert found.rejected.empty
    missing = read(folder, "path,label,mask\nb.png,x,masks/b.png|masks/gone.png\na.png,ok,masks/b2.png\n")
    assert said(missing)["b.png"][2] is None
    assert reasons(missing) == {
        "masks/b.png": "mask_unused",
        "masks/gone.png": "mask_missing",
        "masks/b2.png": "mask_unused",
    }


def test_groups_and_columns_that_are_not_read_are_said(folder):
    found = read(
        folder, "path,lable,group,split\na.png,good,7,train\nb.png,bad,7,test\nc.png,,8,train\nsub/d.png,,8,train\n"
    )
    assert found.doubts == ("column lable of parts.csv is not read", "group 7 is in test and in train")
    assert found.manifest["sample_id"].nunique() == 2


def test_a_group_stays_together_when_it_is_split(folder):
    names = [f"{number}.png" for number in range(12)]
    for seed, name in enumerate(names):
        save(folder / name, photo(100 + seed))
    rows = [f"{name},{'good' if n < 8 else 'bad'},{n // 2}" for n, name in enumerate(names)]
    found = read(folder, "path,label,group\n" + "\n".join(rows))
    noisy = contaminate(found.manifest, InjectedNoise(ratio=0.2, max_ratio=0.2), 0)
    assert (noisy.groupby("sample_id")["split"].nunique() == 1).all() and noisy["split"].nunique() == 2


def test_a_program_may_give_the_file(folder):
    (folder / "parts.csv").write_text(PLAIN)
    found, root = read_given(folder / "parts.csv", Path(), Files())
    assert said(found) == EXPECTED and root == folder and set(found.manifest["category"]) == {"parts"}


def test_the_file_lies_in_the_root(folder):
    for file in ("../parts.csv", "/etc/parts.csv"):
        with pytest.raises(DataError, match="expected the name of a file inside the root"):
            read_source(ManifestDataset(root=str(folder), file=file, category="c"), folder)
    with pytest.raises(DataError, match=r"parts\.csv cannot be read: No such file"):
        read_source(ManifestDataset(root=str(folder), file="parts.csv", category="c"), Path(folder))


def cells_with_a_list(cells, folder):
    """Copy 16 solar cells into `folder` and return a file that names them, and one more in its last row."""
    (folder / "cam").mkdir(parents=True)
    names = sorted((cells / "good").iterdir())[:14] + sorted((cells / "bad").iterdir())[:2]
    for path in names:
        shutil.copy(path, folder / "cam")
    rows = [f"cam\\{path.name};;{number}" for number, path in enumerate(names)]
    (folder / "parts.csv").write_text("\n".join(["path;label;group", *rows, "gone.png;;"]))
    return folder / "parts.csv"


def test_a_run_on_a_manifest_prints_what_it_read_and_lists_its_bad_rows(cells, tmp_path):
    file = cells_with_a_list(cells, tmp_path)
    done = llbnad("run", file, "--detector", "padim", "--set", "detector.dimensions=8", "--set",
                  "encoder.input_size=64", "--subsets", 2, "--no-comparators", "--out", tmp_path / "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "parts.csv: 17 rows, 16 images\nlabel (empty): 16 images, unlabelled" in done.stdout
    assert (tmp_path / "out" / "folders.csv").read_text() == "place,images,meaning\nlabel (empty),16,unlabelled\n"
    left_out = pd.read_csv(tmp_path / "out" / "left_out.csv")
    assert left_out["path"].tolist() == ["gone.png"] and left_out["detail"].str.startswith("row 18: ").all()


def test_the_stage_raw_reads_a_manifest_and_depends_on_its_folder(cells, tmp_path, monkeypatch):
    cells_with_a_list(cells, tmp_path / "data" / "own" / "cells")
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    entry = {"source": "manifest", "root": "data/own/cells", "file": "parts.csv", "category": "cell"}
    params["datasets"]["cells"] = entry
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(orchestration, "STARTED", time.time() + 1)  # files that are newer than the process are refused
    raw.main("cells")
    manifest = read_manifest(Path("data/raw/cells/manifest.parquet"))
    assert len(manifest) == 16 and all(Path(path).is_file() for path in manifest["path"])
    assert set(manifest["sample_id"]) == {str(number) for number in range(16)}
    assert pd.read_csv("data/raw/cells/left_out.csv")["reason"].tolist() == ["missing"]
    assert Path("data/raw/cells/folders.csv").read_text() == "place,images,meaning\nlabel (empty),16,unlabelled\n"
    stage = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]["raw"]["do"]
    assert "${item.root}" in stage["deps"]  # the folder that holds the list and its images
    for key, value in (("file", "../parts.csv"), ("root", "data/own/cells/parts.csv")):
        params["datasets"]["cells"] = entry | {key: value}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        with pytest.raises(DataError, match=r"expected the name of a file|is not a folder"):
            raw.main("cells")
