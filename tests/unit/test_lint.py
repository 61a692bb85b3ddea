"""`llbnad lint`: what it says of a data set, and its exit code."""

import sys

import pandas as pd
import pytest
from PIL import Image

from llbnad.cli import main
from tests.unit.test_folder_inputs import mask, photo, save


def lint(monkeypatch, capsys, *arguments):
    """Return exit code, standard output and standard error of the command."""
    monkeypatch.setattr(sys, "argv", ["llbnad", "lint", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    return ended.value.code or 0, shown.out, shown.err.splitlines()[-1:]


def sorted_set(root):
    """Write a data set that needs no decision."""
    for number in range(4):
        save(root / "train" / "good" / f"{number}.png", photo(number))
        save(root / "test" / ("good" if number % 2 else "cut") / f"{number}.png", photo(10 + number))
    for number in (0, 2):
        save(root / "ground_truth" / "cut" / str(number) / "0.png", mask())
        save(root / "ground_truth" / "cut" / str(number) / "1.png", mask(9))
    save(root / "validation" / "0.png", photo(30))
    (root / "notes.txt").write_text("x")
    (root / ".DS_Store").write_text("x")


def test_a_sorted_set_needs_no_decision(tmp_path, monkeypatch, capsys):
    sorted_set(tmp_path)
    code, out, _ = lint(monkeypatch, capsys, tmp_path, "--out", tmp_path / ".findings.csv")
    assert code == 0
    assert out.splitlines() == [
        "8 images, 8 items; 3 files are left out",
        "folder test/cut/: 2 images, test, defects",
        "folder test/good/: 2 images, test, normal",
        "folder train/good/: 4 images, train, normal",
        "folder validation/: 1 images, held out",
        "labels: normal (6), cut (2)",
        "splits: test (4), train (4)",
        "masks: 2 images have one, from 4 files",
        "sizes: 64 × 64 (8)",
        "left out: 1 held_out: validation/0.png (images of validation/ are neither trained nor tested on)",
        "left out: 1 hidden: .DS_Store (a hidden file, whose name begins with a dot)",
        out.splitlines()[-2],
        "nothing needs a decision",
    ]
    assert out.splitlines()[-2].startswith("left out: 1 other_file: notes.txt (expected a name ending in")
    findings = pd.read_csv(tmp_path / ".findings.csv")
    folders = ["test/cut/", "test/good/", "train/good/", "validation/"]
    assert findings["path"].tolist() == [".DS_Store", "notes.txt", "validation/0.png", *folders]
    assert findings.set_index("path")["detail"]["test/cut/"] == "2 images, test, defects"
    assert set(findings["reason"][-4:]) == {"taken_for"}
    assert not findings["needs_decision"].any()


def equal_in_both_splits(root):
    save(root / "train" / "good" / "9.bmp", photo(11))


def black(root):
    save(root / "train" / "good" / "black.png", Image.new("L", (64, 64)))


def two_valued(root):
    save(root / "train" / "good" / "drawn.png", mask(3))


def damaged(root):
    (root / "train" / "good" / "9.png").write_bytes(b"\x89PNG")


def mask_of_nothing(root):
    save(root / "ground_truth" / "cut" / "9.png", mask())


def no_mask(root):
    save(root / "test" / "cut" / "9.png", photo(50))


def linked(root):
    (root / "more").symlink_to(root / "train")


def unknown_folder(root):
    save(root / "camera 2" / "0.png", photo(50))


def hinted(root):
    save(root / "test" / "ok_front" / "0.png", photo(50))


def wide(root):
    save(root / "train" / "good" / "wide.png", photo(50).crop((0, 0, 64, 32)))


def only_defects(root):
    for path in (root / "test" / "good").iterdir():
        path.unlink()


def without_label(root):
    save(root / "test" / "0.png", photo(50))


FINDINGS = {
    equal_in_both_splits: "1 duplicate: train/good/9.bmp (same pixels as test/good/1.png, which is in test, not in",
    black: "1 constant: train/good/black.png (all of its pixels have one value)",
    two_valued: "1 two_valued: train/good/drawn.png (holds two grey values only",
    damaged: "1 unreadable: train/good/9.png (",
    mask_of_nothing: "1 mask_without_image: ground_truth/cut/9.png (a mask that fits no image)",
    no_mask: "1 of 3 defects have no mask: test/cut/9.png",
    linked: "1 linked_folder: more (a link to a folder is not followed)",
    unknown_folder: "folder camera 2/ is unlabelled, because its name says nothing, though other folders have labels",
    hinted: "folder test/ok_front/ is taken for normal by a word of its name: 1 images",
    wide: "1 images have another aspect ratio than most (64 × 64), and each is squeezed to a square: train/good/w",
    only_defects: "the test images are all defects: no metric can be given",
    without_label: "1 of 5 test images have no label, and count in no metric",
}  # fmt: skip


@pytest.mark.parametrize("spoil", FINDINGS, ids=lambda spoil: spoil.__name__)
def test_what_needs_a_decision_is_said_and_listed(tmp_path, monkeypatch, capsys, spoil):
    sorted_set(tmp_path / "set")
    spoil(tmp_path / "set")
    code, out, _ = lint(monkeypatch, capsys, "--root", tmp_path / "set", "--out", tmp_path / "findings.csv")
    assert code == 1 and out.splitlines()[-1] == "1 findings need a decision"
    (line,) = [line for line in out.splitlines() if FINDINGS[spoil] in line]
    assert line.startswith(("left out: ", "in doubt: "))
    findings = pd.read_csv(tmp_path / "findings.csv")
    assert findings["needs_decision"].sum() == 1 and (findings["reason"] != "taken_for").sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --root is missing: the folder of the image_folder data set"),
        (["--root", "{}/nowhere"], "error: the root {}/nowhere of source image_folder is not a folder"),
        (["--root", "{}"], "error: no image below {} to train on; there is nothing"),
        (["--source", "manifest", "--root", "{}/gone.csv"], "error: the manifest file {}/gone.csv cannot be read: "),
        (["--source", "manifest", "--root", "{}"], "error: the manifest file {}/manifest.csv cannot be read: "),
        (["--source", "real_iad", "--root", "{}"], "error: no JSON of category 'mono'"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    code, out, error = lint(monkeypatch, capsys, *(argument.format(tmp_path) for argument in arguments))
    assert (code, out) == (2, "")
    assert error[0].startswith(message.format(tmp_path))


def test_a_manifest_is_linted_by_its_file(tmp_path, monkeypatch, capsys):
    for number in range(3):
        save(tmp_path / f"{number}.png", photo(number))
    (tmp_path / "parts.csv").write_text("path;label;weight\n0.png;good;1\n1.png;Riss;2\n2.png;0;3\n")
    code, out, _ = lint(monkeypatch, capsys, tmp_path / "parts.csv")
    assert code == 1
    for line in (
        "parts.csv: 3 rows, 2 images",
        "label Riss: 1 images, defects",
        "left out: 1 bad_row: 2.png (row 4: label is '0', which may mean either; expected good, bad, the name of a "
        "defect, or empty)",
        "in doubt: column weight of parts.csv is not read",
        "2 findings need a decision",
    ):
        assert line in out.splitlines()
