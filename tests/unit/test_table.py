"""One real cell of the purification table, and the numbers drawn from a table."""

import numpy as np
import pandas as pd
import pytest

from llbnad.config import parse
from llbnad.errors import ConfigError
from llbnad.policies.fraction import Fraction
from llbnad.purification.purify import purify
from llbnad.study.left_out import left_out
from llbnad.study.table import Grid, _misindexed, run_cell
from llbnad.study.table_summary import contamination_figure, gap_closed, gap_over_sets, summary, table_figure

GRID = {
    "datasets": {"cells": {"source": "image_folder", "root": "unused", "category": "cells"}},
    "encoder": {"name": "efficientnet_lite2", "input_size": 64, "layers": [2, 3]},
    "pool": 2,
    "detectors": {"patchcore": {"name": "patchcore", "memory_size": 256}},
    "rivals": {"softpatch": {"name": "softpatch", "memory_size": 256}},
    "noise": {"protocol": "replace", "max_ratio": 0.2, "test_share": 0.3},
    "ratios": [0.2],
    "seeds": [0],
    "subsets": 2,
    "aggregation": "oof_mean",
    "policies": {
        "default": {"selection": {"policy": "fraction", "keep": 0.8}, "patch_rejection": 0.7},
        "misindexed": {"selection": {"policy": "fraction", "keep": 0.8}, "misindexed": True},
    },
}


def test_cells_have_a_row_for_every_policy_and_the_comparators(few_cells, tmp_path):
    manifest, root = few_cells
    grid = parse(Grid, GRID, "grid")
    rows = pd.concat([run_cell(cell, grid, manifest, root, tmp_path) for cell in grid.cells()])
    assert rows["policy"].tolist() == ["default", "misindexed", "none", "oracle", "random", "none"]
    assert rows["detector"].tolist() == ["patchcore"] * 5 + ["softpatch"]
    table = rows[rows["detector"] == "patchcore"].set_index("policy")
    assert table.loc["none", "kept"] == 1 and table.loc["oracle", "contamination_after"] == 0
    assert table.loc["random", "kept"] == table.loc["default", "kept"] < 1
    # of ten images two are defects; one is found
    assert 0 < table.loc["default", "contamination_after"] < table.loc["none", "contamination_after"]
    assert rows["image_auroc"].between(0.9, 1).all() and set(rows["n_test"]) == {8}


def test_a_grid_that_would_fail_after_hours_is_refused_at_once():
    with pytest.raises(ConfigError, match="policies: one must be called default"):
        parse(Grid, {**GRID, "policies": {"mine": GRID["policies"]["default"]}}, "grid")
    with pytest.raises(ConfigError, match="candidates: best is none of the policies"):
        parse(Grid, {**GRID, "candidates": ["best"]}, "grid")
    with pytest.raises(ConfigError, match="rivals: patchcore is the name of a detector as well"):
        parse(Grid, {**GRID, "rivals": GRID["detectors"]}, "grid")


def test_misindexed_takes_a_perfect_selection_and_hands_on_a_random_one():
    ids = [f"{number:04}" for number in range(2000)]
    truth = pd.Series(np.arange(2000) >= 1600, index=pd.Index(ids))  # the last fifth is anomalous
    kept = purify(truth.astype(float), Fraction(keep=0.8)).kept
    assert truth[list(kept)].mean() == 0
    handed_on = _misindexed(ids, kept, seed=0)
    assert len(set(handed_on)) == len(kept)
    assert truth[list(handed_on)].mean() == pytest.approx(0.2, abs=0.03)


def made_rows():
    rng = np.random.default_rng(0)
    level = {"none": 0.8, "default": 0.88, "oracle": 0.9, "paper": 0.75}
    return pd.DataFrame(
        [
            {"dataset": dataset, "detector": "padim", "alpha": alpha, "policy": policy, "seed": seed,
             "image_auroc": (value if alpha else 0.9) + noise, "pixel_auroc": None, "aupro": None,
             "contamination_before": alpha, "contamination_after": alpha / 2, "kept": 0.8, "rejected_anomalous": 0.5}
            for dataset in ("a", "b")
            for seed in range(3)
            for alpha in (0.0, 0.2)
            for noise in [rng.normal(0, 0.05)]
            for policy, value in level.items()
        ]
    )  # fmt: skip


def test_the_share_of_the_gap_is_paired_over_seeds():
    found = gap_closed(made_rows()).set_index(["dataset", "alpha", "policy"])
    assert found.loc[("a", 0.2, "default"), "closed"] == pytest.approx(0.8)  # whatever the noise of a seed
    assert found.loc[("b", 0.2, "paper"), "closed"] == pytest.approx(-0.5)
    assert found.loc[("a", 0.2, "default"), "gain_low"] == pytest.approx(0.08)
    assert np.isnan(found.loc[("a", 0.0, "default"), "closed"])  # no gap, no share


def test_a_gap_within_its_interval_is_not_measurable_and_counts_in_no_mean():
    rows = made_rows()
    noise = rows["seed"].map({0: -0.2, 1: 0.0, 2: 0.2})
    chosen = (rows["dataset"] == "b") & (rows["policy"] == "oracle") & (rows["alpha"] > 0)
    rows.loc[chosen, "image_auroc"] += noise[chosen]
    closed = gap_closed(rows)
    assert closed[(closed["dataset"] == "b") & (closed["alpha"] > 0)]["closed"].isna().all()
    over = gap_over_sets(closed).set_index("policy")
    assert over.loc["default", "sets"] == 1 and over.loc["default", "closed"] == pytest.approx(0.8)
    assert over.loc["paper", "least_noisy"] == pytest.approx(-0.05)
    assert over.loc["default", "least_clean"] == pytest.approx(0)


def test_a_set_gets_the_policy_that_the_other_sets_choose():
    def gap(dataset, policy, clean, noisy):
        common = {"dataset": dataset, "detector": "padim", "policy": policy, "gap": 0.1}
        return [
            {**common, "alpha": 0.0, "gain": clean, "closed": np.nan},
            {**common, "alpha": 0.2, "gain": noisy, "closed": noisy / 0.1},
        ]

    rows = [
        row
        for dataset, bold in {"a": (-0.1, 0.09), "b": (0.0, 0.08), "c": (0.0, 0.08)}.items()
        for row in gap(dataset, "bold", *bold) + gap(dataset, "shy", 0.0, 0.02)
    ]
    found = left_out(pd.DataFrame(rows), ["shy", "bold"])
    chosen = found.groupby("dataset")["policy"].unique().map(list).to_dict()
    # without a, nothing speaks against the bold one, which then harms a; a keeps it from all others
    assert chosen == {"a": ["bold"], "b": ["shy"], "c": ["shy"]}
    assert found.loc[found["dataset"] == "a", "gain"].tolist() == [-0.1, 0.09]
    all_harm = pd.DataFrame([row for d in "xy" for row in gap(d, "bold", -0.1, 0.09) + gap(d, "shy", -0.02, 0.02)])
    assert set(left_out(all_harm, ["bold", "shy"])["policy"]) == {"shy"}, "the least harm, if all harm"


def test_summary_and_figures(tmp_path):
    assert len(summary(made_rows())) == 2 * 2 * 4
    for draw in (table_figure, contamination_figure):
        draw(made_rows(), tmp_path / "a.png")
        draw(made_rows(), tmp_path / "b.png")
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
