"""Stage 1 beyond the paper: rounds, leaving one subset out, another detector for the sub-models."""

import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from llbnad.detectors import base
from llbnad.detectors.base import draw_patches, embed
from llbnad.detectors.padim import PadimConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import IdentityError
from llbnad.policies.fraction import Fraction
from llbnad.purification import joint_scores as consensus_of
from llbnad.purification import rounds
from llbnad.purification.aggregate import aggregate
from llbnad.purification.joint_scores import Consensus, consensus, score_together
from llbnad.purification.partition import training_masks
from llbnad.purification.patches import out_of_fold_maps
from llbnad.purification.rounds import run_sub_models, select
from llbnad.purification.sub_models import train_sub_model
from llbnad.scenario import ScenarioSettings
from tests.unit.test_detectors import MadeFeatures

IDS = [f"{number:04d}" for number in range(12)]


def made_consensus(values):
    table = pd.DataFrame({"subset": np.arange(12) % 3, "score": np.float32(values)}, index=IDS)
    maps = {image_id: np.full((2, 2), value, np.float16) for image_id, value in zip(IDS, values, strict=True)}
    return Consensus(table.rename_axis("image_id"), maps)


def subsets_of(count):
    return pd.Series(np.arange(12) % count, index=IDS)


def settings(**changes):
    own = {"partition": "disjoint", "rounds": 1, "sub_model_detector": None}
    return ScenarioSettings(selection=Fraction(keep=0.75), patch_rejection=0, **{**own, **changes})


def test_a_further_round_learns_from_what_was_kept_and_may_take_an_image_back():
    first = made_consensus([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])  # keeps 0 … 8
    second = made_consensus([0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 10, 11])  # 8 goes, 9 comes back
    learnt = []

    def again(kept, trusted):
        learnt.append(sorted(kept))
        return second

    found = select(first, settings(rounds=2), {}, again)
    assert learnt == [IDS[:9]]
    assert sorted(found.purified.kept) == [*IDS[:8], IDS[9]]
    assert found.history.to_dict("list") == {"round": [1, 2], "kept": [9, 9], "changed": [3, 2]}
    assert found.consensus is second


def test_the_summary_counts_images_patches_and_verdicts():
    first = made_consensus(range(12))
    verdicts = {IDS[11]: "normal", IDS[3]: "exclude", "elsewhere": "defect"}
    found = select(first, settings(), verdicts, lambda kept, trusted: first)
    everything = pd.DataFrame({"image_id": IDS, "anomaly_class": ["OK"] * 9 + ["cut"] * 3})
    train = everything[everything["image_id"] != IDS[3]]
    summary = found.summary(train, verdicts, everything)
    assert {name: summary[name] for name in ("n_train", "n_selected", "cut")} == {
        "n_train": 11, "n_selected": 9, "cut": 8}  # fmt: skip
    assert summary["kept_share"] == pytest.approx(9 / 11)
    assert summary["contamination_before"] == pytest.approx(3 / 11)
    assert summary["contamination_after"] == pytest.approx(1 / 9) and summary["contamination_rejected"] == 1
    assert summary["patches_rejected"] == 0
    masks = {IDS[0]: np.array([[True, False]]), IDS[1]: np.array([[True, True]])}
    assert replace(found, trusted=masks).summary(train, verdicts, everything)["patches_rejected"] == 0.25
    assert summary["n_verdict_elsewhere"] == summary["n_verdict_normal"] == summary["n_overruled"] == 1
    unlabelled = everything.assign(anomaly_class=None)
    assert found.summary(unlabelled, verdicts, unlabelled)["contamination_after"] is None


def test_rounds_end_when_the_set_is_stable():
    calls = []
    first = made_consensus(range(12))
    found = select(first, settings(rounds=9), {}, lambda kept, trusted: calls.append(kept) or first)
    assert len(calls) == 1 and found.history["changed"].tolist() == [3, 0]


def test_a_set_that_comes_back_ends_the_rounds():
    one = made_consensus(range(12))
    other = made_consensus([0, 1, 2, 3, 4, 5, 6, 7, 12, 8, 10, 11])
    turn = iter([other, one, other, one])
    found = select(one, settings(rounds=9), {}, lambda kept, trusted: next(turn))
    assert found.history["round"].tolist() == [1, 2, 3]


def test_no_round_leaves_a_sub_model_without_images():
    values = [0 if number % 3 else 50 + number for number in range(12)]  # all that is kept is of subsets 1 and 2
    keep = settings(rounds=5).model_copy(update={"selection": Fraction(keep=0.5)})
    found = select(made_consensus(values), keep, {}, lambda kept, trusted: pytest.fail("trained without images"))
    assert len(found.history) == 1


def test_people_s_verdicts_hold_in_every_round():
    learnt = []
    first = made_consensus(range(12))
    verdicts = {IDS[0]: "defect", IDS[11]: "normal"}
    select(first, settings(rounds=2), verdicts, lambda kept, trusted: learnt.append(set(kept)) or first)
    assert IDS[0] not in learnt[0] and IDS[11] in learnt[0]


def test_people_s_word_on_one_image_moves_no_other_image_s_patches():
    first = made_consensus(range(12))
    for heat in first.maps.values():
        heat[1, 1] += 20  # a hot patch in each
    own = settings().model_copy(update={"patch_rejection": 0.7})
    by_policy = select(first, own, {}, None).trusted
    assert sorted(by_policy) == IDS[:9] and not all(mask.all() for mask in by_policy.values())
    judged = select(first, own, {IDS[11]: "normal", IDS[8]: "normal", IDS[0]: "defect", IDS[1]: "exclude"}, None)
    # what they take back is trusted whole: it has no mask; where they agree with the policy, nothing changes
    assert sorted(judged.trusted) == IDS[2:9] and {IDS[8], IDS[11]} <= set(judged.purified.kept)
    assert all(np.array_equal(mask, by_policy[image_id]) for image_id, mask in judged.trusted.items())


def test_leave_out_learns_from_the_other_subsets():
    subsets = pd.Series([0, 1, 2, 1], index=["a", "b", "c", "d"])
    disjoint, leave_out = (training_masks(subsets, 3, kind) for kind in ("disjoint", "leave_out"))
    assert disjoint.sum(axis=1).tolist() == [1] * 4 and leave_out.sum(axis=1).tolist() == [2] * 4
    assert not (disjoint & leave_out).any()
    model, own = train_sub_model(
        1, MadeFeatures(), pd.Series([0, 1, 2, 1], index=IDS[:4]),
        settings(partition="leave_out", detector=PatchcoreConfig(memory_size=16)),
    )  # fmt: skip
    assert own == [IDS[0], IDS[2]]
    assert model.config.memory_size == 16


def test_out_of_fold_is_what_did_not_learn_from_the_image():
    table = pd.DataFrame({"sub_model_0": [1.0, 5.0], "sub_model_1": [2.0, 7.0], "subset": [0, 1]}, index=["a", "b"])
    assert aggregate(table, "oof_mean", "disjoint").tolist() == [2, 5]
    assert aggregate(table, "oof_mean", "leave_out").tolist() == [1, 7]
    maps = [{"a": np.full((1, 1), 1.0)}, {"a": np.full((1, 1), 2.0)}]
    assert out_of_fold_maps(maps, pd.Series({"a": 0}), "disjoint")["a"] == 2
    assert out_of_fold_maps(maps, pd.Series({"a": 0}), "leave_out")["a"] == 1


def test_sub_models_may_be_of_another_kind():
    one_kind = settings(detector=PatchcoreConfig(memory_size=64))
    other = one_kind.model_copy(update={"sub_model_detector": PadimConfig(dimensions=4)})
    subsets = subsets_of(3)
    assert train_sub_model(0, MadeFeatures(), subsets, one_kind)[0].config.name == "patchcore"
    assert train_sub_model(0, MadeFeatures(), subsets, other)[0].config.name == "padim"
    assert run_sub_models(MadeFeatures(), subsets, other).table["score"].notna().all()


@pytest.mark.parametrize("partition", ["disjoint", "leave_out"])
@pytest.mark.parametrize("detector", [PatchcoreConfig(memory_size=64, vectors="raw"), PadimConfig(dimensions=4)])
def test_scoring_together_gives_the_bits_that_sub_models_give_one_by_one(partition, detector):
    config = settings(detector=detector, partition=partition)
    subsets = subsets_of(3).sample(frac=1, random_state=0)
    models = [train_sub_model(number, MadeFeatures(), subsets, config)[0] for number in range(3)]
    scores, maps = zip(
        *(model.score_with_maps(MadeFeatures(), subsets.index.tolist()) for model in models), strict=True
    )
    one_by_one, together = (
        consensus(scores, maps, subsets, config),
        score_together(models, MadeFeatures(), subsets, config),
    )
    pd.testing.assert_frame_equal(together.table, one_by_one.table, check_exact=True)
    assert list(together.maps) == list(one_by_one.maps) == sorted(IDS)
    assert all(np.array_equal(together.maps[image_id], one_by_one.maps[image_id]) for image_id in IDS)


@pytest.mark.parametrize("partition", ["disjoint", "leave_out"])
def test_sub_models_too_large_to_hold_together_score_in_turn_with_the_same_bits(partition, monkeypatch):
    config = settings(detector=PadimConfig(dimensions=4), partition=partition)
    subsets = subsets_of(3).sample(frac=1, random_state=0)
    together = run_sub_models(MadeFeatures(), subsets, config)
    alive, others = weakref.WeakSet(), []
    train_one = rounds.train_sub_model

    def counted(*arguments):
        others.append(len(alive))
        model, own = train_one(*arguments)
        alive.add(model.detector)
        return model, own

    monkeypatch.setattr(rounds, "train_sub_model", counted)
    monkeypatch.setattr(consensus_of, "HELD_BYTES", 0)
    in_turn = run_sub_models(MadeFeatures(), subsets, config)
    assert others == [0, 0, 0]  # sub-models in memory when the next one is trained
    pd.testing.assert_frame_equal(in_turn.table, together.table, check_exact=True)
    assert list(in_turn.maps) == list(together.maps)
    assert all(np.array_equal(in_turn.maps[image_id], together.maps[image_id]) for image_id in IDS)


def test_scores_go_by_the_ids_that_batches_name():
    class Shuffled(MadeFeatures):
        def batches(self, image_ids, description):
            return super().batches(image_ids[::-1], description)

    class Short(MadeFeatures):
        def batches(self, image_ids, description):
            return super().batches(image_ids[:-1], description)

    config = settings(detector=PatchcoreConfig(memory_size=64))
    models = [train_sub_model(number, MadeFeatures(), subsets_of(3), config)[0] for number in range(3)]
    expected, found = (score_together(models, source, subsets_of(3), config) for source in (MadeFeatures(), Shuffled()))
    pd.testing.assert_frame_equal(found.table, expected.table)
    assert all(np.array_equal(found.maps[image_id], expected.maps[image_id]) for image_id in IDS)
    with pytest.raises(IdentityError):
        score_together(models, Short(), subsets_of(3), config)


@pytest.mark.parametrize("seed", range(4))
def test_rounds_end_before_a_sub_model_has_too_little_to_learn_from(seed):
    config = ScenarioSettings(
        selection=Fraction(keep=0.2), patch_rejection=0, detector=PadimConfig(dimensions=4), rounds=3
    )
    subsets = subsets_of(3).sample(frac=1, random_state=seed)

    def again(kept, trusted):
        return run_sub_models(MadeFeatures(), subsets, config, kept, trusted)

    found = select(run_sub_models(MadeFeatures(), subsets, config), config, {}, again)
    assert len(found.purified.kept) == 2


def test_sub_models_read_and_embed_a_batch_once(monkeypatch):
    embedded = []
    monkeypatch.setattr(base, "embed", lambda maps, vectors: embedded.append(1) or embed(maps, vectors))
    config = settings(detector=PatchcoreConfig(memory_size=64))
    subsets = subsets_of(3)
    models = [train_sub_model(number, MadeFeatures(), subsets, config)[0] for number in range(3)]
    embedded.clear()
    score_together(models, MadeFeatures(), subsets, config)
    assert len(embedded) == len(list(MadeFeatures().batches(IDS, "")))


def test_an_image_that_contributes_no_patch_is_not_read():
    read = []

    class Counting(MadeFeatures):
        def batches(self, image_ids, description):
            read.extend(image_ids)
            return super().batches(image_ids, description)

    few, more = (draw_patches(Counting(), IDS, count, 0, "x") for count in (3, len(IDS)))
    assert len(few) == 3 and len(read) == 3 + len(IDS)
    rows = {tuple(row) for row in more.tolist()}
    assert {tuple(row) for row in few.tolist()} <= rows  # each image's first patch, whoever else is read


def test_sets_that_share_images_share_patches():
    def drawn(ids, count=100):
        return {tuple(row) for row in draw_patches(MadeFeatures(), ids, count, 0, "patchcore").tolist()}

    assert draw_patches(MadeFeatures(), IDS, 100, 0, "x").shape[0] == 100
    assert torch.equal(
        draw_patches(MadeFeatures(), IDS[::-1], 100, 0, "x"), draw_patches(MadeFeatures(), IDS, 100, 0, "x")
    )
    assert len(drawn(IDS) & drawn(IDS[:-1])) >= 100 - 2 * 9  # an image's share goes, the others give one more each
    assert drawn(IDS) != {tuple(row) for row in draw_patches(MadeFeatures(), IDS, 100, 1, "x").tolist()}


def test_a_policy_may_be_cautious_before_the_last_round_and_then_has_the_last_word():
    values = [0.9, 0.95, 1, 1.02, 1.05, 1.1, 1.11, 1.12, 1.15, 1.2, 9, 10]
    own = settings(rounds=3).model_copy(update={"selection": Cautious(keep=0.5)})
    found = select(made_consensus(values), own, {}, lambda kept, trusted: made_consensus(values))
    assert found.history["kept"].tolist() == [11, 6]  # nine tenths before, and no third round: nothing changed
    assert len(found.purified.kept) == 6


class Cautious(Fraction):
    """Keeps nine tenths in all rounds but the last."""

    @property
    def before_last(self):
        """Return the cautious policy."""
        return Fraction(keep=0.9)
