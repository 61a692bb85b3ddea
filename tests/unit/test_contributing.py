"""CONTRIBUTING.md does what it says: its files and registry lines go into a copy of the package, its commands run."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from llbnad.detectors import DETECTORS
from tests.conftest import REPOSITORY, llbnad

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
METHODS = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def runs(start: str) -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith(start)]


def comparison(command: str, cells: Path, folder: Path, python_path: Path) -> pd.DataFrame:
    """Run a command of the page on a few small images and return its comparison."""
    arguments = shlex.split(command)
    small = ["--source", "image_folder", "--root", str(cells), "--noise-ratio", "0.2", "--max-noise-ratio", "0.2",
             "--suspects", "0", "--no-comparators", "--set", "encoder.input_size=64",
             "--set", "calibration.folds=2"]  # fmt: skip
    done = llbnad(*arguments[arguments.index("llbnad") + 1 :], *small, folder=folder, PYTHONPATH=str(python_path))
    assert done.returncode == 0, done.stderr
    return pd.read_csv(folder / arguments[arguments.index("--out") + 1] / "comparison.csv")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with a copy of the package, extended as the page says."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(REPOSITORY / "llbnad", folder / "llbnad", ignore=shutil.ignore_patterns("__pycache__"))
    for file in blocks("python"):
        (folder / file.splitlines()[0].removeprefix("# ")).write_text(file)
    for block in blocks("text"):
        name, line = block.splitlines()
        registry = folder / name.removeprefix("# ")
        registry.write_text(registry.read_text().replace("    {\n", f"    {{\n{line}\n", 1))
    return folder


def test_own_detector_policy_and_encoder_are_one_file_and_one_line_each(package):
    assert len(blocks("python")) == len(blocks("text")) == 3


def test_own_detector_and_policy_purify_and_detect(package, cells, tmp_path):
    found = comparison(runs("llbnad run --out runs/mine")[0], cells, tmp_path, package)
    assert found["image_auroc"].between(0.5, 1).all()
    assert found["n_selected"].iloc[0] < found["n_train"].iloc[0]


def test_own_encoder_is_encoded_with(package, cells, tmp_path):
    found = comparison(runs("llbnad run --out runs/pixels")[0], cells, tmp_path, package)
    assert found["image_auroc"].between(0.5, 1).all()
    stored = next((tmp_path / "runs" / "pixels" / "features").rglob("*.safetensors"))
    assert stored.stat().st_size > 2 * 2 * 192 * 8 * 8  # two layers of 192 pixel values in 8 × 8 cells, 2 bytes each


def test_own_classes_work_from_outside_the_package(cells, tmp_path):
    parts = tmp_path / "my_parts"
    parts.mkdir()
    for file in blocks("python")[:2]:
        name = Path(file.splitlines()[0].removeprefix("# ")).name
        (parts / name).write_text(re.sub(r"^    (name|policy): Literal.*\n", "", file, flags=re.MULTILINE))
    found = comparison(runs("PYTHONPATH=my_parts llbnad run")[0], cells, tmp_path, parts)
    assert found["image_auroc"].between(0.5, 1).all()
    assert found["n_selected"].iloc[0] < found["n_train"].iloc[0]


def test_every_detector_is_in_the_table():
    section = METHODS[METHODS.index("## Detectors") : METHODS.index("## Encoders")]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(DETECTORS.names)
