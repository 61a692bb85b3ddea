"""The young-line study: draws that can be compared, one real cell, and what the summaries count."""

import pandas as pd
import pytest

from llbnad.config import parse
from llbnad.data.manifest import is_anomalous
from llbnad.errors import ConfigError, DataError
from llbnad.study.young_line import YoungLine, draw_images, run_young_cell
from llbnad.study.young_line_summary import over_sets, per_set, ranking_figure, ranking_over_sets, young_line_figure
from tests.conftest import made_manifest

GRID = {
    "datasets": {"cells": {"source": "image_folder", "root": "unused", "category": "cells"}},
    "encoder": {"name": "efficientnet_lite2", "input_size": 64, "layers": [2, 3]},
    "pool": 2,
    "detectors": {"patchcore": {"name": "patchcore", "memory_size": 256}},
    "sizes": [10, 20],
    "ratios": [0.0, 0.2],
    "seeds": [0],
    "new_images": 30,
}


def grid(**changes):
    return parse(YoungLine, {**GRID, **changes}, "grid")


def ids(rows, kind):
    return set(rows["image_id"][is_anomalous(rows).astype(bool) == kind])


def test_sizes_and_ratios_of_a_draw_are_nested_and_share_their_new_images():
    manifest = made_manifest(60, 40)
    draws = {(n, a): draw_images(manifest, grid(), n, a, 0) for n in (10, 20) for a in (0.0, 0.2)}
    for (n, a), draw in draws.items():
        assert (len(ids(draw.train, False)), len(ids(draw.train, True))) == (round(n * (1 - a)), round(n * a))
        assert set(draw.train["split"]) == {"train"}
        assert not set(draw.train["image_id"]) & set(draw.new["image_id"])
        assert set(draw.new["image_id"]) == set(draws[10, 0.0].new["image_id"])
    assert (len(ids(draws[10, 0.0].new, False)), len(ids(draws[10, 0.0].new, True))) == (30, 30)
    assert all(ids(draws[10, 0.2].train, kind) < ids(draws[20, 0.2].train, kind) for kind in (False, True))
    shuffled = draw_images(manifest.sample(frac=1, random_state=1), grid(), 10, 0.2, 0)
    pd.testing.assert_frame_equal(shuffled.train, draws[10, 0.2].train)
    assert ids(draw_images(manifest, grid(), 10, 0.2, 1).train, False) != ids(draws[10, 0.2].train, False)


def test_views_of_a_training_sample_are_not_new():
    manifest = made_manifest(40, 20, views=3)
    draw = draw_images(manifest, grid(), 20, 0.2, 0)
    assert not set(draw.train["sample_id"]) & set(draw.new["sample_id"])


def test_a_data_set_that_is_too_small_is_refused():
    with pytest.raises(
        DataError, match="20 normal images; expected more than 20, which the largest training set needs"
    ):
        draw_images(made_manifest(20, 40), grid(), 10, 0.2, 0)
    with pytest.raises(DataError, match="4 anomalous images; expected more than 4"):
        draw_images(made_manifest(60, 4), grid(), 10, 0.2, 0)


def test_an_unknown_setting_is_refused():
    with pytest.raises(ConfigError, match="settings: colour is an unknown key"):
        grid(settings={"colour": 1}).scenario("patchcore", 0)


def test_a_real_cell_has_a_row_per_size_and_an_oracle_of_the_normal_images(few_cells, tmp_path):
    manifest, root = few_cells
    chosen = grid(
        sizes=[8],
        ratios=[0.0],
        settings={"subsets": 2, "selection": {"policy": "fraction", "keep": 1}, "comparators": ["none"]},
    )
    (cell,) = chosen.cells()
    (row,) = run_young_cell(cell, chosen, manifest, root, tmp_path).to_dict("records")
    assert row["n"] == 8 and row["kept"] == 1 and row["contamination_after"] == 0
    for name in ("recall", "fpr", "image_auroc", "unsure"):  # everything was kept, and everything is normal
        assert row[name] == row[f"oracle_{name}"]
    assert row["none_image_auroc"] == row["image_auroc"]
    assert 0.5 < row["image_auroc"] <= 1 and row["recall"] >= row["fpr"]


def rows(**values):
    base = {"detector": "padim", "n": 40, "alpha": 0.1, "fpr": 0.02, "oracle_fpr": 0.01, "unsure": 0.1, "kept": 0.9}
    names = ("contamination_after", "agreement", "image_auroc", "unsure_anomalous", "unsure_normal", "surely_found",
             "oracle_image_auroc", "oracle_unsure")  # fmt: skip
    return pd.DataFrame({**base, "decided_by": "bound", **dict.fromkeys(names, 0.5), **values})


def test_means_are_taken_over_sets_on_which_the_oracle_sees():
    table = rows(
        dataset=["a", "a", "b", "b", "c", "c"],
        seed=[0, 1] * 3,
        recall=[0.6, 0.0, 0.3, 0.3, 0.0, 0.0],
        oracle_recall=[0.8, 0.6, 0.3, 0.5, 0.2, 0.3],  # c: .25
    )
    (found,) = over_sets(table).to_dict("records")
    assert found["sets"] == 2 and found["recall"] == pytest.approx(0.3)
    assert found["oracle_recall"] == pytest.approx(0.55) and found["recall_ratio"] == pytest.approx(0.3 / 0.55)
    assert found["blind"] == pytest.approx(1 / 3)  # 0.0 beside 0.6, of the three with an oracle of at least 0.4
    means = per_set(table).set_index("dataset")
    assert means["recall"].to_dict() == pytest.approx({"a": 0.3, "b": 0.3, "c": 0.0})
    assert set(means["by_bound"]) == {1.0} and set(means["draws"]) == {2}
    blind = over_sets(table[table["dataset"] == "c"]).iloc[0]
    assert blind["sets"] == 0 and pd.isna(blind["recall"]) and pd.isna(blind["blind"])


def test_the_curve_over_sizes_is_paired_by_draw(tmp_path):
    table = rows(
        dataset=["a", "a", "b", "b"],
        seed=[0, 1] * 2,
        recall=0.5,
        oracle_recall=0.6,
        none_image_auroc=[0.5, 0.9, 0.7, 0.7],
    )
    table["image_auroc"] = table["none_image_auroc"] + 0.1
    curve = ranking_over_sets(table)
    (found,) = curve.to_dict("records")
    assert (found["sets"], found["draws"], found["none"]) == (2, 2, pytest.approx(0.7))
    assert found["gain_low"] == pytest.approx(0.1) == found["gain_high"]  # however much the draws differ
    assert "none_image_auroc" in per_set(table)
    for name in ("a.png", "b.png"):
        ranking_figure(curve, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_figure_is_drawn_with_equal_bytes(tmp_path):
    table = pd.concat([rows(dataset=["a"], seed=[0], recall=[0.5], oracle_recall=[0.6]).assign(n=n) for n in (20, 40)])
    for name in ("a.png", "b.png"):
        young_line_figure(over_sets(table), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
