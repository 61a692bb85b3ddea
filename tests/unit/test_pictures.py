"""The pictures of the pages: made by one command from the cells that every installation brings."""

import re

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import __main__ as pictures
from benchmarks.pictures import browser, chart, demo
from llbnad.config import InjectedNoise
from llbnad.data.sources.records import Scan
from llbnad.scenario import make_settings
from tests.conftest import REPOSITORY

SMALL = {
    "encoder": {"name": "efficientnet_lite2", "input_size": 64, "layers": [2]},
    "detector": {"name": "patchcore", "memory_size": 256},
    "sub_model_detector": None,
    "selection": {"policy": "fraction", "keep": 0.8},
    "subsets": 2,
    "rounds": 1,
    "comparators": [],
}
NOISE = InjectedNoise(protocol="replace", ratio=0.2, max_ratio=0.2, test_share=0.4)


def test_pictures_are_made_from_the_embedded_cells(few_cells, tmp_path, monkeypatch, capsys):
    manifest, folder = few_cells
    monkeypatch.setattr(demo, "read_source", lambda dataset, root: (Scan(manifest, manifest[:0]), folder))
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)  # no Chromium: said, and the others are made
    monkeypatch.setattr(chart, "BAD_HOURS", (5,))
    monkeypatch.setattr(chart, "HOURS", 6)
    wanted, out = ["suspects", "control_chart", "review", "inspection"], tmp_path / "out"
    pictures.make(wanted, out, make_settings(SMALL, "test"), NOISE, tmp_path / "cache")
    told = capsys.readouterr().out
    assert "suspects: done" in told and "review left out: a screenshot needs Chromium" in told
    assert "inspection left out: a screenshot needs Chromium" in told
    made = {path.name for path in out.iterdir()}
    assert made == {"scores.png", "suspects.jpg", "control_chart.png"}
    with Image.open(out / "suspects.jpg") as image:
        assert np.asarray(image).std() > 20


def test_every_picture_of_the_folder_is_shown_and_small():
    folder = REPOSITORY / "docs" / "pictures"
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"pictures/([\w.]+\.(?:png|jpg))\)", page.read_text())}
    made = {path.name for path in folder.iterdir() if path.suffix != ".md"}
    assert made == shown
    assert all((folder / name).stat().st_size < 300_000 for name in made)


def test_an_unknown_picture_is_refused(tmp_path):
    with pytest.raises(pictures.typer.BadParameter, match="nothing: expected some of suspects"):
        pictures.make(["nothing"], tmp_path, make_settings(SMALL, "test"), NOISE, tmp_path)
