"""llbnad/README.md does what it says: its files and registry lines go into a copy of the package, its command runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pandas as pd

from llbnad.detectors import DETECTORS
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "llbnad" / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_own_detector_and_policy_are_a_file_and_a_line_each(tmp_path, cells):
    shutil.copytree(REPOSITORY / "llbnad", tmp_path / "llbnad", ignore=shutil.ignore_patterns("__pycache__"))
    files = blocks("python")
    assert len(files) == 2
    for file in files:
        (tmp_path / file.splitlines()[0].removeprefix("# ")).write_text(file)
    for block in blocks("text"):
        name, line = block.splitlines()
        registry = tmp_path / name.removeprefix("# ")
        registry.write_text(registry.read_text().replace("    {\n", f"    {{\n{line}\n", 1))
    command = shlex.split(blocks("sh")[-1])
    small = ["--source", "image_folder", "--root", str(cells), "--noise-ratio", "0.2", "--max-noise-ratio", "0.2",
             "--set", "encoder.input_size=64", "--suspects", "0", "--no-comparators"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-m", "llbnad.cli", *command[1:], *small], cwd=tmp_path, env=environment, check=True
    )
    comparison = pd.read_csv(tmp_path / "runs" / "mine" / "comparison.csv")
    assert comparison["image_auroc"].between(0.5, 1).all()
    assert comparison["n_selected"].iloc[0] < comparison["n_train"].iloc[0]


def test_every_detector_is_in_the_table():
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(DETECTORS.names)
