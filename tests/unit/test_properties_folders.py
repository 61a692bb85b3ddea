"""Small trees of any names, Real-IAD's lists of any content, tables of any form: used whole, or refused in words."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llbnad.config import ImageFolderDataset, RealIadDataset
from llbnad.data.manifest import SCHEMA, read_manifest, write_manifest
from llbnad.data.sources import read_source
from llbnad.errors import LlbnadError
from tests.unit.properties import damaged, everything, examples, refused

FOLDERS = ["train", "test", "good", "bad", "NOK", "images", "masks", "label", "gt", "ground_truth", "validation", "val",
           "@eaDir", "bottle", "a.png", "ü b", "n.i.O.", " ", "%s", "-x", ".hidden"]  # fmt: skip
STEMS = ["1", "2", "1_mask", "2_GT", "1_label", "_mask", "a b", "ü\n", "x" * 200, "%d", "-1", ".dot", "mask"]
SUFFIXES = [".png", ".jpg", ".PNG", ".bmp", ".tif", ".txt", "", ".png.png", ".json"]
KINDS = ["photo", "photo", "mask", "constant", "text", "empty", "cut", "folder", "link", "loop"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("folders")


def picture(kind, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 12), dtype=np.uint8)
    if kind == "mask":
        pixels = np.zeros_like(pixels)
        pixels[2 + seed % 9 : 8, 3:9] = 255
    elif kind == "constant":
        pixels[:] = seed % 256
    return Image.fromarray(pixels)


def lay(root, path, kind, seed):
    """Put one thing of a kind at `path`, unless something is in its way."""
    target = root / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() or target.is_symlink():
            return
        if kind == "folder":
            target.mkdir()
        elif kind in ("link", "loop"):
            target.symlink_to(root if kind == "loop" else root / "gone")
        elif kind in ("text", "empty"):
            target.write_text("x" if kind == "text" else "")
        else:
            with target.open("wb") as stream:
                picture(kind, seed).save(stream, "PNG")
            if kind == "cut":
                target.write_bytes(target.read_bytes()[:60])
    except (FileExistsError, NotADirectoryError):
        return  # a file is where a folder was wanted


PATHS = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(st.sampled_from(FOLDERS), max_size=3), st.sampled_from(STEMS), st.sampled_from(SUFFIXES),
)  # fmt: skip


@examples(150)
@given(tree=st.lists(st.tuples(PATHS, st.sampled_from(KINDS), st.integers(0, 3)), max_size=8))
def test_every_file_of_a_tree_is_used_or_listed(place, tree):
    root = place / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, kind, seed in tree:
        lay(root, path, kind, seed)
    before = everything(place)
    found = None

    def read():
        nonlocal found
        found, _ = read_source(ImageFolderDataset(root=str(root), category="c"), root)

    assert refused(read) or found is not None
    assert everything(place) == before
    if found is not None:
        used = [*found.manifest["path"], *found.manifest["mask_path"].dropna(), *found.rejected["path"]]
        there = [path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()]
        seen = {path.as_posix() for path in there if not any(part.startswith(".") for part in path.parts)}
        assert not seen - set(used) and not [path for path in used if not os.path.lexists(root / path)]
        assert not set(found.manifest["path"]) & (set(found.manifest["mask_path"]) | set(found.rejected["path"]))


ENTRY = {
    "category": "p",
    "anomaly_class": "OK",
    "image_path": "OK/S0001/p_0001_OK_C1_0.png",
    "mask_path": None,
}
LIST = {"meta": {"normal_class": "OK", "prefix": "p/"}, "train": [ENTRY], "test": [ENTRY]}
TEXTS = st.sampled_from(
    ["../../secret.png", "/etc/passwd", "a\\..\\..\\b.png", "C:\\x\\y\\z.png", "OK/S1/../../../../x.png", "", ".", "\0",
     "OK/S0001/p_0001_OK_C1_0.png", "OK\\S0001\\p_0001_OK_C1_0.png", "a/b", "None", "\ud800/a/b.png"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*LIST, *ENTRY]), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def lists(draw):
    """Draw a list of Real-IAD with anything at one or two places."""
    content = json.loads(json.dumps(LIST))
    for _ in range(draw(st.integers(1, 2))):
        places = [content, content["meta"], content["train"], content["test"]]
        places += [one for part in ("train", "test") for one in content[part] if isinstance(one, dict)]
        node = draw(st.sampled_from([one for one in places if one]))
        node[draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))] = draw(JSON)
        if not all(isinstance(content[key], type(LIST[key])) for key in LIST):
            break
    return json.dumps(content).encode(errors="surrogatepass")


@pytest.fixture(scope="module")
def real_iad(place):
    root = place / "real_iad"
    image = root / "realiad_1024" / "p" / ENTRY["image_path"]
    image.parent.mkdir(parents=True)
    picture("photo", 0).save(image)
    picture("photo", 1).save(place / "secret.png")
    (root / "realiad_jsons").mkdir()
    return root


@examples(150)
@given(content=lists() | JSON.map(lambda one: json.dumps(one).encode()) | damaged(json.dumps(LIST).encode()))
def test_a_list_of_real_iad_never_leaves_its_folder(real_iad, content):
    (real_iad / "realiad_jsons" / "p.json").write_bytes(content)
    try:
        found, root = read_source(RealIadDataset(root=str(real_iad), category="p"), real_iad)
    except LlbnadError as error:
        assert str(error)
        return
    for path in found.manifest["path"]:
        assert (root / path).resolve().is_relative_to(real_iad.resolve())


ROW = {"image_id": "0" * 64, "path": "a.png", "mask_path": None, "category": "c", "sample_id": "a.png", "view": None,
       "anomaly_class": "OK", "split": "train", "width": 8, "height": 8}  # fmt: skip
CELLS = st.sampled_from([None, 0, -1, 1.5, "x", "", True, 2**40, b"\xff", "8", float("nan")])


@st.composite
def tables(draw):
    """Draw a manifest with columns that hold anything, are missing or are too many."""
    rows = draw(st.integers(0, 3))
    columns = {name: [value] * rows for name, value in ROW.items()} | {"image_id": [f"{n:064x}" for n in range(rows)]}
    for name in draw(st.lists(st.sampled_from([*ROW, "more"]), max_size=2)):
        kind = draw(st.sampled_from(["missing", "one", "mixed"]))
        if kind == "missing":
            columns.pop(name, None)
        elif kind == "one":
            columns[name] = [draw(CELLS)] * rows
        else:
            columns[name] = draw(st.lists(CELLS, min_size=rows, max_size=rows))
    return pd.DataFrame(columns)


@examples(80)
@given(frame=tables())
def test_any_table_is_a_manifest_or_refused_in_words(place, frame):
    path = place / "manifest.parquet"
    try:
        frame.to_parquet(path)
    except Exception:  # no parquet file can hold it
        return
    if not refused(read_manifest, path):
        found = read_manifest(path)
        assert set(SCHEMA.names) <= set(found)
        assert all(isinstance(value, str) for name in ("image_id", "path", "sample_id") for value in found[name])
        write_manifest(found, place / "again.parquet")


@examples(60)
@given(data=st.data())
def test_a_damaged_manifest_is_refused_in_words(place, data):
    path = place / "manifest.parquet"
    write_manifest(pd.DataFrame([ROW, {**ROW, "image_id": "1" * 64}]), path)
    content = path.read_bytes()
    path.write_bytes(data.draw(damaged(content) | st.binary(max_size=40)))
    refused(read_manifest, path)
