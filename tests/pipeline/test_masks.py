"""A mask has no id in any table: that it changed must be seen all the same."""

import pandas as pd

from orchestration import dvc
from orchestration.stages.raw import main as raw
from tests.conftest import REPOSITORY, save_image
from tests.pipeline.conftest import NOISY, make_workspace


def test_an_edited_mask_changes_what_its_readers_depend_on(tmp_path, monkeypatch):
    for seed in range(4):
        save_image(tmp_path / "images" / ("bad" if seed else "good") / f"{seed}.png", seed)
    mask = save_image(tmp_path / "images" / "bad" / "1_mask.png", 9)
    folder = make_workspace(tmp_path / "work", {"cells": tmp_path / "images"}, {"noisy20": NOISY})
    monkeypatch.chdir(folder)
    raw("cells")
    (copy,) = folder.rglob(mask.name)
    out = folder / "data" / "raw" / "cells"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert pd.read_csv(out / "masks.csv")["mask_path"].tolist() == ["bad/1_mask.png"]

    save_image(copy, 10)
    raw("cells")
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {name for name in before if before[name] != after[name]} == {"masks.csv"}


def test_stages_that_read_masks_depend_on_their_content():
    graph = dvc.stage_graph(REPOSITORY)
    for stage, needed in graph.items():
        if stage.startswith(("purified@", "evaluation@")):
            assert any(before.startswith("raw@") for before in needed), stage
