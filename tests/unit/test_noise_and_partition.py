"""Noise protocols and the split into subsets: by physical sample, reproducible, independent of the table's order."""

import pytest

from llbnad.config import InjectedNoise, NoNoise
from llbnad.data.contaminate import anomalous_samples, contaminate, promised_ratio, sample_contamination
from llbnad.data.manifest import contamination
from llbnad.errors import DataError
from llbnad.purification.partition import assign_subsets, count_subsets
from tests.conftest import made_manifest


def noise(ratio, protocol="replace", max_ratio=0.4):
    return InjectedNoise(protocol=protocol, ratio=ratio, max_ratio=max_ratio, test_share=0.2)


def parts(variant):
    train = variant[variant["split"] == "train"]
    return train, variant[variant["split"] == "test"]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.2, 0.4])
def test_replace_keeps_n_constant_and_injects_exactly_alpha(ratio):
    train, test = parts(contaminate(made_manifest(100, 60), noise(ratio), 0))
    assert train["sample_id"].nunique() == 80
    assert len(anomalous_samples(train)) == int(ratio * 80)
    assert not set(train["sample_id"]) & set(test["sample_id"])


def test_add_keeps_all_normals():
    train, _ = parts(contaminate(made_manifest(100, 60), noise(0.2, "add"), 0))
    assert (len(train) - len(anomalous_samples(train)), len(anomalous_samples(train))) == (80, 16)


@pytest.mark.parametrize("protocol", ["replace", "add"])
def test_test_set_is_the_same_for_every_alpha_and_smaller_alpha_inject_a_subset(protocol):
    tests, injected = [], []
    for ratio in (0.0, 0.1, 0.4):
        train, test = parts(contaminate(made_manifest(100, 60), noise(ratio, protocol), 3))
        tests.append(set(test["image_id"]))
        injected.append(anomalous_samples(train))
    assert tests[0] == tests[1] == tests[2]
    assert injected[0] < injected[1] < injected[2]


@pytest.mark.parametrize("protocol", ["replace", "add"])
@pytest.mark.parametrize("ratio", [0.0, 0.07, 0.29])
def test_the_promised_ratio_is_the_one_injected(protocol, ratio):
    wanted = noise(ratio, protocol)
    variant = contaminate(made_manifest(100, 60, views=2), wanted, 1)
    train, _ = parts(variant)
    assert promised_ratio(variant, wanted) == sample_contamination(train)
    assert promised_ratio(variant, NoNoise()) is None


def test_all_views_of_a_sample_go_together():
    train, test = parts(contaminate(made_manifest(50, 30, views=5), noise(0.2), 0))
    assert set(train.groupby("sample_id").size()) == set(test.groupby("sample_id").size()) == {5}
    # a defect shows in one of five views: the share of images is a fifth of the share of samples
    assert contamination(train) == pytest.approx(0.2 / 5)
    assert sample_contamination(train) == pytest.approx(0.2)


def test_order_of_the_table_does_not_matter():
    manifest = made_manifest(60, 30)
    shuffled = manifest.sample(frac=1, random_state=1)
    first, second = (contaminate(table, noise(0.3), 5).sort_values("image_id") for table in (manifest, shuffled))
    assert first["split"].tolist() == second["split"].tolist()


def test_another_seed_is_another_variant():
    first, second = (contaminate(made_manifest(60, 30), noise(0.3), seed) for seed in (0, 1))
    assert set(parts(first)[0]["image_id"]) != set(parts(second)[0]["image_id"])


@pytest.mark.parametrize(("anomalous", "largest"), [(20, 0.237), (32, 0.387), (0, 0.0)])
def test_not_enough_anomalies_says_how_many_and_the_largest_ratio(anomalous, largest):
    manifest = made_manifest(100, anomalous)
    message = f"32 anomalous samples and one more to test on, but there are {anomalous}: the largest possible ratio is "
    with pytest.raises(DataError, match=message + str(largest)):
        contaminate(manifest, noise(0.1), 0)
    # what it recommends works, and leaves something to find in the test set
    test = parts(contaminate(manifest, noise(min(0.1, largest), max_ratio=largest), 0))[1]
    assert (test["anomaly_class"] != "OK").any() == (anomalous > 0)


def test_source_s_own_split_is_kept():
    manifest = made_manifest(10, 8)
    manifest["split"] = ["train"] * 6 + ["test"] * 12
    train, test = parts(contaminate(manifest, noise(0.0), 0))
    assert set(train["sample_id"]) == {f"sample {number}" for number in range(6)}
    assert {"sample 6", "sample 9"} <= set(test["sample_id"])


def test_a_source_that_is_noisy_already_is_not_injected_into():
    manifest = made_manifest(10, 8)
    manifest["split"] = ["train"] * 11 + ["test"] * 7
    with pytest.raises(DataError, match=r"has 1 anomalous samples, such as sample 10: .* use protocol as_is"):
        contaminate(manifest, noise(0.1), 0)
    assert len(parts(contaminate(manifest, NoNoise(), 0))[0]) == 11


def test_test_images_never_train_though_others_have_no_split():
    manifest = made_manifest(40, 20)
    manifest["split"] = ["test"] * 10 + ["train"] * 5 + [None] * 45
    train, test = parts(contaminate(manifest, noise(0.0), 0))
    assert {f"sample {number}" for number in range(10)} <= set(test["sample_id"])
    assert {f"sample {number}" for number in range(10, 15)} <= set(train["sample_id"])
    assert len(train) == 5 + 20  # a fifth of the 25 normal ones without a split is held out


def test_unlabelled_images_cannot_be_injected_but_pass_as_they_are():
    manifest = made_manifest(10, 5)
    manifest["anomaly_class"] = None
    with pytest.raises(DataError, match="use protocol as_is"):
        contaminate(manifest, noise(0.1), 0)
    assert set(contaminate(manifest, NoNoise(), 0)["split"]) == {"train"}


def test_subsets_are_disjoint_by_sample_and_cover_all():
    manifest = made_manifest(80, 20, views=3)
    subsets = assign_subsets(manifest, 3, 0)
    assert sorted(subsets.index) == sorted(manifest["image_id"])
    assert set(subsets) == {0, 1, 2}
    assert manifest.assign(k=subsets.to_numpy()).groupby("sample_id")["k"].nunique().max() == 1
    assert subsets.value_counts().min() > 60  # of 300 images, a third each on average


def test_a_sample_keeps_its_subset_when_others_arrive():
    manifest = made_manifest(180, 20)
    before = assign_subsets(manifest.head(150), 3, 0)
    after = assign_subsets(manifest.sample(frac=1, random_state=0), 3, 0)
    assert after[before.index].equals(before)


def test_empty_subset_is_an_error():
    with pytest.raises(
        DataError, match=r"2 different training samples leave 3 of 5 subsets empty: use --subsets 2 or more images$"
    ):
        assign_subsets(made_manifest(2, 0), 5, 0)


def test_few_samples_get_more_subsets_and_never_more_than_there_are():
    assert [count_subsets("auto", samples) for samples in (1, 2, 7, 10, 199, 200, 5000)] == [2, 2, 7, 10, 10, 5, 5]
    assert count_subsets(3, 40) == count_subsets(3, 4000) == 3
    assert set(assign_subsets(made_manifest(7, 0, views=2), "auto", 0)) == set(range(7))  # samples count, not images
    assert set(assign_subsets(made_manifest(180, 30), "auto", 0)) == set(range(5))


def test_few_samples_are_dealt_out_evenly():
    sizes = assign_subsets(made_manifest(18, 2), 5, 0).value_counts()
    assert sizes.tolist() == [4] * 5
