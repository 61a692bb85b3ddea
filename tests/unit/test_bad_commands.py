"""Odd values for the commands of `python -m orchestration`: one clear line, exit code 2, no traceback and no hang."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration import __main__ as pipeline
from tests.conftest import REPOSITORY

SCENARIO, HUGE = "elpv_mono_a20", "9" * 30
NAMES = ("nope", "", "../x", "/etc", "a b", "a'b", "\udcff", "x" * 300, "a\nb", HUGE, "nan", ".", "..", "-1")
NO_NAMES = [name for name in NAMES if not re.fullmatch(r"\w+", name, re.ASCII)]  # the registry asks MLflow for others
NUMBERS = ("nan", "inf", "-inf", "-1", "0", "", HUGE, "1e999", "2.5", "\udcff")
FILES = ("", "gone.yaml", "folder", "fifo", "latin.yaml", "text.txt", "\udcff", "../x", "/dev/zero", "x" * 5000)
ADDRESSES = ("models:/", "runs:/", "models:/../x@y", "models:/llbnad-x@champion\udcff")
GRID = "benchmarks/young_line.yaml"
REVIEW = ("review", SCENARIO, "--out", "page.html")
EXPORT = ("export", "model.safetensors", SCENARIO, "--out", "out")

KINDS = {
    **{f"{command}, another name": [(*command.split(), "--", name) for name in NAMES]
       for command in ("drift", "record", "ingest", "registry challenge")},
    **{f"registry {command}, no name": [("registry", command, "--", name) for name in NO_NAMES]
       for command in ("promote", "rollback", "list")},
    "review, another name": [("review", "--out", "page.html", "--", name) for name in NAMES],
    "export, another name": [("export", "--out", "out", "--", "model.safetensors", name) for name in NAMES],
    "two names, or one too many": [
        ("drift", SCENARIO, SCENARIO), (*REVIEW, SCENARIO), ("registry", "challenge", SCENARIO, SCENARIO, SCENARIO),
        ("registry", "list", SCENARIO, SCENARIO), ("registry", "rollback", SCENARIO, SCENARIO), ("run", SCENARIO),
        ("audit", SCENARIO), ("settings", SCENARIO), ("mend", SCENARIO), ("ui", SCENARIO), ("backfill", SCENARIO),
        ("benchmark", GRID, GRID), (*EXPORT, SCENARIO),
    ],
    "nothing, or half": [("record",), ("drift",), ("review", SCENARIO), ("export",), ("benchmark",), ("predict",),
                         ("registry", "list"), ("",), ("\udcff",), ("registry", ""), ("run", "--verify=x")],
    "numbers": [
        *((*REVIEW, "--suspects", number) for number in NUMBERS),
        *(("benchmark", GRID, "--processes", number) for number in NUMBERS),
        *(("benchmark", GRID, "--seed", number) for number in NUMBERS if number != "0"),
        *(("ui", option, number) for option in ("--dagster-port", "--mlflow-port") for number in (*NUMBERS, "65536")),
    ],
    "files to read": [
        *(("benchmark", "--", file) for file in FILES),
        *((*REVIEW, "--verdicts", file) for file in FILES),
        *(("export", "--out", "out", "--", file, SCENARIO) for file in FILES),
    ],
    "files to write": [
        *(("review", SCENARIO, "--out", file) for file in ("", "folder", "fifo", "/dev/full")),
        *(("benchmark", GRID, "--out", file) for file in ("text.txt", "text.txt/y", "fifo")),
        *((*EXPORT[:-1], file) for file in ("text.txt", "text.txt/y", "fifo")),
    ],
    "benchmark, another data set": [("benchmark", GRID, "--dataset", name) for name in ("", "nope", "../x", "\udcff")],
    "export, another format": [(*EXPORT, "--format", name) for name in ("", "x", "ONNX", "\udcff")],
    "export, another address": [("export", "--out", "out", "--", name, SCENARIO) for name in ADDRESSES],
    "ui, another address": [("ui", "--host", host) for host in ("", "\udcff", "x" * 300)],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository in which nothing ran, with files of every odd kind."""
    place = tmp_path_factory.mktemp("commands")
    for name in ("params.yaml", "dvc.yaml", "constraints.txt", "data/review/none.csv", GRID):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, place / name)
    (place / "data" / "incoming" / "line").mkdir(parents=True)
    (place / "folder").mkdir()
    os.mkfifo(place / "fifo")
    (place / "latin.yaml").write_bytes(b"\xff\xfe\xfa")
    (place / "text.txt").write_text("x")
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_every_odd_value_is_one_clear_line(folder, monkeypatch, capsys, kind):
    monkeypatch.chdir(folder)
    before = {path for path in folder.rglob("*") if "mlflow" not in path.parts}

    def hangs(*_):
        raise TimeoutError(f"{arguments} hangs")

    signal.signal(signal.SIGALRM, hangs)
    for arguments in KINDS[kind]:
        monkeypatch.setattr("sys.argv", ["program", *arguments])
        signal.alarm(30)
        with pytest.raises(SystemExit) as end:
            pipeline.main()
        signal.alarm(0)
        said = capsys.readouterr().err.strip()
        assert end.value.code == 2 and said and "Traceback" not in said, arguments
        assert (
            "Usage: " in said or "╭─ Error" in said or (said.startswith("error: ") and len(said.splitlines()) == 1)
        ), (arguments, said)
    after = {path for path in folder.rglob("*") if "mlflow" not in path.parts}
    assert after - before <= {folder / "out"}  # an empty folder for a model that is not there
    assert not any((folder / "out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("registry", "list", "a b"), "error: unknown scenario 'a b'; params.yaml has"),
        (("registry", "promote", "a'b"), 'error: unknown scenario "a\'b"; params.yaml has'),
        (("registry", "rollback", "../x"), "error: unknown scenario '../x'; params.yaml has"),
        (("benchmark", GRID, "--seed", "-1"), "error: --seed -1: the grid has [0, 1, 2"),
        ((*REVIEW, "--verdicts", "fifo"), "error: fifo is a pipe, a socket or a device: expected a CSV file with the"),
        (("review", SCENARIO, "--out", "folder"), "error: folder is a folder: expected an HTML file that may be"),
        (("export", "models:/", SCENARIO, "--out", "o"), "expected models:/NAME@ALIAS, models:/NAME/VERSION or"),
        (("ui", "--host", ""), "error: --host '' is no address to listen on (it is empty): expected one of this"),
    ],
)
def test_the_line_says_what_was_expected(folder, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    with pytest.raises(SystemExit):
        pipeline.main()
    assert expected in capsys.readouterr().err


def test_a_python_without_the_packages_is_told_which_one_has_them():
    """As after `python -m orchestration` in a terminal where the environment is not active."""
    command = [sys.executable, "-S", "-m", "orchestration", "status"]  # -S: nothing that was installed
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: ") and ".venv/bin/python" in line


def test_no_file_takes_the_place_of_a_pipe(folder, monkeypatch, capsys):
    from llbnad.errors import DataError
    from llbnad.utils.files import write_json

    for name in ("fifo", "folder"):
        with pytest.raises(DataError, match=f"{name} is a .*: expected a file that may be written"):
            write_json({}, folder / name)
    assert Path(folder / "fifo").is_fifo()
