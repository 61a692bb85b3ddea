"""From the sub-models' scores to the kept set: identity by image id, whatever the order."""

import numpy as np
import pandas as pd
import pytest

from llbnad.config import METHOD
from llbnad.data.manifest import contamination
from llbnad.errors import ConfigError, DataError, IdentityError, SubModelsError
from llbnad.model.scores import Scores
from llbnad.policies.fraction import Fraction
from llbnad.policies.mad import Mad, mad_cut
from llbnad.purification.aggregate import aggregate, rank_correlation, score_table
from llbnad.purification.comparators import training_sets
from llbnad.purification.partition import assign_subsets
from llbnad.purification.purify import purify
from tests.conftest import made_manifest

METHODS = ("mean", "oof_mean", "max", "rank_mean", "max_var")


def sub_model_scores(manifest, models=3, seed=0, perfect=True):
    """Each sub-model's scores in an order of its own; perfect ones are higher for every anomaly."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(models):
        order = rng.permutation(len(manifest))
        shuffled = manifest.iloc[order]
        values = rng.random(len(manifest)) + (2 * (shuffled["anomaly_class"] != "OK").to_numpy() if perfect else 0)
        found.append(Scores(tuple(shuffled["image_id"]), values.astype(np.float32)))
    return found


@pytest.mark.parametrize("method", METHODS)
def test_perfect_scores_hand_no_anomaly_to_stage_2(method):
    manifest = made_manifest(80, 20).sample(frac=1, random_state=4)
    subsets = assign_subsets(manifest, 3, 0)
    scores = aggregate(score_table(sub_model_scores(manifest), subsets), method)
    kept = purify(scores, Fraction(keep=0.8)).kept
    trained_on = training_sets(manifest, kept, ("none",), 0)[METHOD]
    assert len(trained_on) == 80
    assert contamination(manifest[manifest["image_id"].isin(trained_on)]) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("selection", [Fraction(keep=0.5), Mad(k=1.0)])
def test_permuting_the_images_leaves_the_kept_set_unchanged(method, selection):
    manifest = made_manifest(60, 20)
    scores = sub_model_scores(manifest, perfect=False)
    shuffled = manifest.sample(frac=1, random_state=2)
    reordered = [Scores(one.image_ids[::-1], one.values[::-1]) for one in scores]
    first = purify(aggregate(score_table(scores, assign_subsets(manifest, 3, 0)), method), selection)
    second = purify(aggregate(score_table(reordered, assign_subsets(shuffled, 3, 0)), method), selection)
    assert first == second


@pytest.mark.parametrize("method", ["mean", "max", "rank_mean", "max_var"])
def test_one_sub_model_is_plain_ranking(method):
    manifest = made_manifest(30, 0)
    (scores,) = sub_model_scores(manifest, models=1, perfect=False)
    table = score_table([scores], assign_subsets(manifest, 1, 0))
    ranking = scores.series().sort_values().index[:12]
    assert set(purify(aggregate(table, method), Fraction(keep=0.4)).kept) == set(ranking)


def test_one_sub_model_has_no_out_of_fold_score():
    manifest = made_manifest(10, 0)
    with pytest.raises(ConfigError, match="at least 2 subsets"):
        aggregate(score_table(sub_model_scores(manifest, models=1), assign_subsets(manifest, 1, 0)), "oof_mean")


def test_aggregations_on_known_numbers():
    table = pd.DataFrame(
        {"sub_model_0": [1.0, 2.0], "sub_model_1": [3.0, 0.0], "subset": [0, 1]}, index=pd.Index(["a", "b"])
    )
    assert aggregate(table, "mean").tolist() == [2, 1]
    assert aggregate(table, "oof_mean").tolist() == [3, 2]  # the sub-model that did not train on it
    assert aggregate(table, "max").tolist() == [3, 2]
    assert aggregate(table, "rank_mean").tolist() == [0.75, 0.75]
    assert aggregate(table, "max_var").tolist() == [4, 3]
    assert rank_correlation(table).loc["sub_model_0", "sub_model_1"] == pytest.approx(-1)


def test_one_badly_scaled_sub_model_does_not_dominate_ranks():
    manifest = made_manifest(40, 10)
    good = sub_model_scores(manifest, models=2)
    noisy = sub_model_scores(manifest, models=1, seed=7, perfect=False)[0]
    loud = Scores(noisy.image_ids, noisy.values * 1e6)
    table = score_table([*good, loud], assign_subsets(manifest, 3, 0))
    rejected = {method: purify(aggregate(table, method), Fraction(keep=0.8)).rejected for method in METHODS}
    found = {method: contamination(manifest[manifest["image_id"].isin(ids)]) for method, ids in rejected.items()}
    assert found["rank_mean"] >= 0.8
    assert found["mean"] < 0.5


def test_a_sub_model_that_missed_an_image_is_an_error():
    manifest = made_manifest(10, 0)
    scores = sub_model_scores(manifest)
    scores[1] = Scores(scores[1].image_ids[:-1], scores[1].values[:-1])
    with pytest.raises(SubModelsError, match="sub-model 1 and the training set differ in 1 images"):
        score_table(scores, assign_subsets(manifest, 3, 0))


def test_scores_refuse_doubles_and_what_is_not_finite():
    with pytest.raises(IdentityError, match="scored twice"):
        Scores(("a", "a"), np.zeros(2, np.float32))
    with pytest.raises(DataError, match="image b has the score nan"):
        Scores(("a", "b"), np.array([0, np.nan], np.float32))
    with pytest.raises(IdentityError, match="no score"):
        Scores(("a",), np.zeros(1, np.float32)).of(["b"])


def test_scores_survive_the_disk_in_any_order(tmp_path):
    scores = Scores(("b", "a"), np.array([2, 1], np.float32))
    scores.write(tmp_path / "s.parquet")
    assert Scores.read(tmp_path / "s.parquet").of(["b", "a"]).tolist() == [2, 1]


def test_mad_cut_on_known_numbers():
    assert mad_cut(np.array([0.0, 1, 2, 3, 100]), 2) == pytest.approx(2 + 2 * 1.4826)


def test_mad_keeps_all_of_a_set_without_spread_and_fraction_breaks_ties_by_id():
    equal = pd.Series(1.0, index=pd.Index(list("dbca")))
    assert purify(equal, Mad(k=0)).kept == tuple("abcd")
    assert purify(equal, Fraction(keep=0.5)).kept == ("a", "b")


def test_kept_and_rejected_partition_the_images_and_the_cut_is_the_largest_kept():
    scores = pd.Series(np.random.default_rng(0).random(50), index=pd.Index([f"{n:02}" for n in range(50)]))
    result = purify(scores, Fraction(keep=0.3))
    assert sorted(result.kept + result.rejected) == sorted(scores.index)
    assert scores[list(result.kept)].max() == result.cut < scores[list(result.rejected)].min()


def test_comparators_on_known_labels():
    manifest = made_manifest(30, 10)
    kept = manifest["image_id"].tolist()[:25]
    sets = training_sets(manifest, kept, ("none", "oracle", "random"), 0)
    assert {name: len(ids) for name, ids in sets.items()} == {"llbnad": 25, "none": 40, "oracle": 30, "random": 25}
    assert contamination(manifest[manifest["image_id"].isin(sets["oracle"])]) == 0
    unlabelled = manifest.assign(anomaly_class=None)
    assert set(training_sets(unlabelled, kept, ("none", "oracle", "random"), 0)) == {"llbnad", "none", "random"}
