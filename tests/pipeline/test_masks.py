"""Masks have no id in any table, but a changed mask must still be noticed."""

import pandas as pd

from llbnad.data.manifest import read_manifest
from llbnad.data.masks import split_masks
from orchestration.pipeline import dvc
from tests.conftest import REPOSITORY, save_image
from tests.pipeline.conftest import NOISY, make_workspace, stage


def test_an_edited_mask_changes_what_its_readers_depend_on(tmp_path):
    for seed in range(4):
        save_image(tmp_path / "images" / ("bad" if seed else "good") / f"{seed}.png", seed)
    mask = save_image(tmp_path / "images" / "bad" / "1_mask.png", 9)
    save_image(tmp_path / "images" / "bad" / "1_mask_2.png", 11)  # several of one image are joined
    folder = make_workspace(tmp_path / "work", {"cells": tmp_path / "images"}, {"noisy20": NOISY})
    assert stage(folder, "code").returncode == 0
    assert stage(folder, "raw", "cells").returncode == 0
    (copy,) = folder.rglob(mask.name)
    out = folder / "data" / "raw" / "cells"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert pd.read_csv(out / "masks.csv")["mask_path"].tolist() == ["bad/1_mask.png", "bad/1_mask_2.png"]
    joined = read_manifest(out / "manifest.parquet")["mask_path"].dropna().item()
    assert split_masks(joined) == [f"data/own/cells/bad/{name}" for name in ("1_mask.png", "1_mask_2.png")]
    assert all((folder / path).is_file() for path in split_masks(joined))

    save_image(copy, 10)
    assert stage(folder, "raw", "cells").returncode == 0
    after = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {name for name in before if before[name] != after[name]} == {"masks.csv"}


def test_stages_that_read_masks_depend_on_their_content():
    graph = dvc.stage_graph(REPOSITORY)
    for name, needed in graph.items():
        if name.startswith(("purified@", "evaluation@")):
            assert any(before.startswith("raw@") for before in needed), name
