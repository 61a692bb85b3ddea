"""Selection policies on scores with known anomalies."""

import numpy as np
import pandas as pd
import pytest

from llbnad.config import SelectionPolicy, parse
from llbnad.errors import ConfigError, DataError
from llbnad.policies import POLICIES, count_kept
from llbnad.policies.adaptive import Adaptive
from llbnad.policies.mixture import Mixture
from llbnad.policies.otsu import Otsu
from llbnad.policies.tail import Tail
from llbnad.purification.aggregate import aggregate
from llbnad.scenario import ScenarioSettings


def scores(anomalous, seed=0, normal=300):
    """Ascending log-normal scores, `anomalous` of them three spreads higher."""
    rng = np.random.default_rng(seed)
    values = [rng.lognormal(0, 0.15, normal), rng.lognormal(0.6, 0.15, anomalous)]
    return np.sort(np.concatenate(values)), normal


@pytest.mark.parametrize("seed", range(8))
def test_mixture_keeps_all_of_a_clean_set(seed):
    clean, _ = scores(0, seed)
    assert Mixture().count(clean) == len(clean)


@pytest.mark.parametrize("policy", [Mixture(), Otsu()], ids=lambda policy: policy.policy)
@pytest.mark.parametrize("anomalous", [60, 150, 200])
def test_two_modes_are_cut_between(policy, anomalous):
    values, normal = scores(anomalous)
    assert policy.count(values) == pytest.approx(normal, abs=0.06 * normal)


@pytest.mark.parametrize("name", POLICIES.names)
def test_every_policy_keeps_something_of_anything(name):
    policy = POLICIES.get(name)()
    for values in (np.ones(1), np.ones(30), np.array([0.0, 1.0]), np.zeros(12), np.r_[np.zeros(20), 1.0]):
        assert 1 <= policy.count(values) <= len(values)


@pytest.mark.parametrize("policy", [Mixture(), Otsu()], ids=lambda policy: policy.policy)
def test_a_few_images_that_are_there_twice_are_no_mode_of_their_own(policy):
    """A frozen camera's shots with other time stamps: another sub-model knows them, they score far below all others."""
    values, normal = scores(60)
    for low in (0.003, 0.1):
        twins = low * np.random.default_rng(0).uniform(0.99, 1.01, 12)
        assert policy.count(np.r_[np.sort(twins), values]) == pytest.approx(12 + normal, abs=0.06 * normal)


@pytest.mark.parametrize("name", POLICIES.names)
def test_a_policy_does_not_depend_on_the_scores_unit(name):
    values, _ = scores(80)
    policy = POLICIES.get(name)()
    assert policy.count(values) == policy.count(values * 1000)


@pytest.mark.parametrize("policy", [Mixture(), Otsu()], ids=lambda policy: policy.policy)
def test_ratios_of_negative_scores_are_refused_and_zeros_are_far_below_all(policy):
    with pytest.raises(DataError, match=rf"policy {policy.policy} .* lowest is -0.8\): use policy mad or fraction"):
        policy.count(np.linspace(-0.8, -0.1, 40))
    assert policy.count(np.r_[np.zeros(40), np.linspace(1, 2, 10)]) == 40


def test_unknown_policy_lists_what_exists():
    with pytest.raises(
        ConfigError, match=r"unknown selection policy 'magic'; there are \['adaptive', 'fraction', 'mad', 'mixture'"
    ):
        parse(ScenarioSettings, {"selection": {"policy": "magic"}}, "params.yaml")


def test_robust_mean_is_deaf_to_a_sub_model_s_unit():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((30, 2)), columns=["sub_model_0", "sub_model_1"]).assign(subset=[0, 1] * 15)
    loud = table.assign(sub_model_1=table["sub_model_1"] * 1e4 + 7)
    assert np.allclose(aggregate(table, "robust_mean"), aggregate(loud, "robust_mean"), atol=1e-4)
    assert not np.allclose(aggregate(table, "oof_mean"), aggregate(loud, "oof_mean"))


@pytest.mark.parametrize("count", [0, 31, -1])
def test_a_policy_of_ones_own_that_answers_nonsense_is_named(count):
    class Own(SelectionPolicy):
        policy: str = "own"

        def count(self, ordered):
            return count

    with pytest.raises(ConfigError, match=f"policy own keeps {count} of 30 images; expected 1 to 30"):
        count_kept(Own(), np.linspace(0, 1, 30))


def test_the_tail_s_cut_is_where_the_lower_half_says():
    """σ of the normal scores is 0.15 and their median 1: the cut lies 3.25 - 0.25 standard deviations above it."""
    clean, _ = scores(0, normal=4000)
    assert Tail().count(clean) == pytest.approx((clean <= np.exp(0.15 * (3.25 - 0.2533))).sum(), abs=6)
    high = np.sort(np.r_[clean[:3600], clean[3600:] * 100])  # how high the upper tenth lies moves nothing
    assert Tail().count(high) == 3600


@pytest.mark.parametrize("seed", range(4))
def test_adaptive_cuts_between_two_modes_only_on_strong_evidence(seed):
    apart = scores(150, seed)[0]
    assert Adaptive().apart(apart) and Adaptive().count(apart) == Mixture().count(apart)
    # two kinds of normal images that overlap: the mixture finds a second mode and rejects one kind
    rng = np.random.default_rng(seed)
    kinds = np.sort(np.r_[rng.lognormal(0, 0.15, 400), rng.lognormal(0.25, 0.25, 200)])
    assert Mixture().count(kinds) < 560 and not Adaptive().apart(kinds)
    assert Adaptive().count(kinds) == Tail().count(kinds) > Mixture().count(kinds)
    few = scores(6, seed, normal=34)[0]
    assert not Adaptive().apart(few), "few images cannot give strong evidence"


def test_adaptive_is_cautious_in_all_rounds_but_the_last():
    assert Adaptive(lost=2).before_last == Tail(lost=2) and not Tail().apart(scores(150)[0])
