"""One real cell of the purification table, and the numbers drawn from a table."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import encoders
from llbnad.config import EncoderConfig, parse
from llbnad.data.sources.records import Scan
from llbnad.errors import ConfigError
from llbnad.evaluation.metrics import ranking
from llbnad.features.batch import Batch
from llbnad.policies.fraction import Fraction
from llbnad.purification.purify import purify
from llbnad.study.bootstrap import BETTER, NOISE, WORSE, differences, mean_differences
from llbnad.study.grid import Grid
from llbnad.study.left_out import left_out
from llbnad.study.table import _misindexed, run_cell
from llbnad.study.table_summary import KEYS, contamination_figure, gap_closed, gap_over_sets, summary, table_figure

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
    found = [run_cell(cell, grid, manifest, root, tmp_path) for cell in grid.cells()]
    rows = pd.concat([result.rows for result in found])
    assert rows["policy"].tolist() == ["default", "misindexed", "none", "oracle", "random", "none"]
    assert rows["detector"].tolist() == ["patchcore"] * 5 + ["softpatch"]
    table = rows[rows["detector"] == "patchcore"].set_index("policy")
    assert table.loc["none", "kept"] == 1 and table.loc["oracle", "contamination_after"] == 0
    assert table.loc["random", "kept"] == table.loc["default", "kept"] < 1
    # of ten images two are defects; one is found
    assert 0 < table.loc["default", "contamination_after"] < table.loc["none", "contamination_after"]
    assert rows["image_auroc"].between(0.9, 1).all() and set(rows["n_test"]) == {8}
    # the kept scores give the table's numbers again
    scores = found[0].scores
    normal, anomalous = scores[~scores["anomalous"]], scores[scores["anomalous"]]
    for policy, expected in table["image_auroc"].items():
        assert ranking(normal[policy].to_numpy(), anomalous[policy].to_numpy()).auroc == pytest.approx(expected)


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


def made_scores(seeds=3, images=60, **shift):
    """Scores of test images, half of them anomalous; `shift` moves the anomalous ones of a policy."""
    rng = np.random.default_rng(0)
    parts = []
    for dataset in ("a", "b"):
        for seed in range(seeds):
            anomalous = np.arange(images) < images // 2
            none = rng.normal(anomalous, 1)
            policies = {"none": none} | {policy: none + by * anomalous for policy, by in shift.items()}
            ids = [f"{dataset}{number}" for number in range(images)]
            parts.append(
                pd.DataFrame({"dataset": dataset, "detector": "padim", "alpha": 0.2, "seed": seed, "image_id": ids,
                              "sample_id": ids, "anomalous": anomalous, **policies})
            )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_a_policy_that_changes_nothing_is_noise_and_one_that_shifts_scores_is_not():
    found = differences(made_scores(default=0, oracle=1.5, paper=-1.5), KEYS, "none").set_index(["dataset", "method"])
    for dataset in ("a", "b"):
        same, better, worse = (found.loc[dataset, name] for name in ("default", "oracle", "paper"))
        assert same["difference_low"] == same["difference"] == same["difference_high"] == 0
        assert 0 < better["difference_low"] < better["difference"] < better["difference_high"] < 1
        assert worse["difference_high"] < 0
        assert [row["significance"] for row in (same, better, worse)] == [NOISE, BETTER, WORSE]


def test_an_interval_is_reproducible_and_knows_of_seeds_images_and_views():
    def width(scores):
        found = differences(scores, KEYS, "none")
        return (found["difference_high"] - found["difference_low"]).mean()

    scores = made_scores(seeds=1, default=0.3)
    pd.testing.assert_frame_equal(differences(scores, KEYS, "none"), differences(scores, KEYS, "none"))
    pd.testing.assert_frame_equal(differences(scores, KEYS, "none"), differences(scores[::-1], KEYS, "none"))
    # a second view of each sample with the same score says nothing new
    twice = pd.concat([scores, scores.assign(image_id=scores["image_id"] + " again")], ignore_index=True)
    assert width(twice) == pytest.approx(width(scores))
    assert width(made_scores(seeds=1, images=240, default=0.3)) < width(scores)
    # seeds that disagree widen it
    seeds = pd.concat([scores, scores.assign(seed=1), scores.assign(seed=2)])
    apart = seeds.assign(default=seeds["default"] + seeds["seed"] * seeds["anomalous"])
    assert width(apart) > 2 * width(seeds) > 0


def test_two_methods_that_are_equally_good_are_rarely_told_apart():
    rng, label = np.random.default_rng(1), np.arange(120) < 60
    parts = []
    for number in range(60):
        latent, own, other = rng.normal(label, 1), rng.normal(0, 0.5, 120), rng.normal(0, 0.5, 120)
        for seed in range(5):  # a seed tests half of the images, and moves the scores of defects by its own amount
            tested = np.sort(np.concatenate([rng.choice(np.flatnonzero(label == kind), 30, False) for kind in (0, 1)]))
            first, second = (latent + noise + rng.normal(0, 0.3) * label for noise in (own, other))
            ids = tested.astype(str)
            parts.append(
                pd.DataFrame({"dataset": number, "detector": "padim", "alpha": 0.2, "seed": seed, "image_id": ids,
                              "sample_id": ids, "anomalous": label[tested], "none": first[tested],
                              "default": second[tested]})
            )  # fmt: skip
    found = differences(pd.concat(parts), KEYS, "none", draws=200)
    assert (found["significance"] != NOISE).mean() <= 0.1


def test_encoders_are_compared_on_equal_splits_and_joined(few_cells, tmp_path, monkeypatch):
    manifest, root = few_cells
    monkeypatch.setattr(encoders, "read_source", lambda dataset, folder: (Scan(manifest, manifest[:0]), root))
    configs = {f"{size} px": EncoderConfig(input_size=size, layers=(2, 3)) for size in (64, 96)}
    detector = parse(Grid, GRID, "grid").detectors["patchcore"]
    dataset = parse(Grid, GRID, "grid").datasets["cells"]
    scores, speeds = encoders.of_data_set(dataset, configs, detector, images=20, seeds=(0, 1), target="cpu")
    names = ["64 px", "96 px", "64 px + 96 px"]
    assert list(speeds) == names and speeds["64 px + 96 px"] < min(speeds["64 px"], speeds["96 px"])
    of_seed = [set(part["image_id"]) for _, part in scores.groupby("seed")]
    assert [len(ids) for ids in of_seed] == [13, 13] and of_seed[0] != of_seed[1]  # 7 of 14 normal, all 6 anomalous
    scores = scores.assign(dataset="cells", detector="patchcore")
    found = [{"dataset": "cells", "encoder": name, "images_per_s": value} for name, value in speeds.items()]
    rows, table = encoders.report(scores, pd.DataFrame(found), "64 px")
    assert len(rows) == 2 * 3 and len(table) == 2 * 3
    joined = table.set_index(["dataset", "encoder"]).loc[("cells", "64 px + 96 px")]
    by_seed = rows.pivot_table(index="seed", columns="encoder", values="image_auroc")
    assert joined["difference"] == pytest.approx((by_seed["64 px + 96 px"] - by_seed["64 px"]).mean())
    assert joined["difference_low"] <= joined["difference"] <= joined["difference_high"]


def test_maps_of_joined_sources_are_finest_first():
    class Source:
        def __init__(self, *sides):
            self.sides = sides

        def batches(self, image_ids, description):
            for image_id in image_ids:
                yield Batch((image_id,), tuple(torch.full((1, side, side, side), float(side)) for side in self.sides))

    joined = encoders.JoinedFeatures([Source(8, 4), Source(16, 16)])
    found = list(joined.batches(["a", "b"], "test"))
    assert [batch.image_ids for batch in found] == [("a",), ("b",)]
    assert [layer.shape[-1] for layer in found[0].maps] == [16, 16, 8, 4]


def test_a_mean_over_data_sets_has_a_narrower_interval():
    scores = made_scores(default=0.3)
    apart, mean = differences(scores, KEYS, "none"), mean_differences(scores, KEYS, "dataset", "none").iloc[0]
    assert mean["difference"] == pytest.approx(apart["difference"].mean()) and mean["dataset"] == 2
    assert mean["difference_high"] - mean["difference_low"] < (apart["difference_high"] - apart["difference_low"]).min()


def test_summary_and_figures(tmp_path):
    table = summary(made_rows(), made_scores(default=2, oracle=2, paper=0))
    assert len(table) == 2 * 2 * 4
    noisy = table[table["alpha"] == 0.2].replace({np.nan: None})
    compared = noisy.groupby("policy")["significance"].unique().map(list).to_dict()
    assert compared == {"none": [None], "default": [BETTER], "oracle": [BETTER], "paper": [NOISE]}
    for draw in (table_figure, contamination_figure):
        draw(made_rows(), tmp_path / "a.png")
        draw(made_rows(), tmp_path / "b.png")
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
