"""Patch purification on maps made by hand, and what detectors make of its masks."""

import numpy as np
import pandas as pd
import pytest
import torch

from llbnad.config import EncoderConfig
from llbnad.detectors.dfr import DfrConfig
from llbnad.detectors.dinomaly.config import DinomalyConfig
from llbnad.detectors.padim import PadimConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import SubModelsError
from llbnad.features.batch import Batch
from llbnad.model.model import train
from llbnad.purification.patches import TrustedFeatures, out_of_fold_maps, trusted_patches
from tests.unit.test_detectors import DEFECT, NORMAL, SIDE, MadeFeatures

DETECTORS = [
    PatchcoreConfig(memory_size=400),
    PadimConfig(dimensions=6),
    DfrConfig(patches=2000, steps=60, batch=128),
]


def test_a_map_is_the_mean_of_those_who_did_not_train_on_the_image():
    maps = [{"a": np.full((2, 2), value), "b": np.full((2, 2), 10 * value)} for value in (1.0, 2.0, 3.0)]
    found = out_of_fold_maps(maps, pd.Series({"b": 2, "a": 0}))
    assert list(found) == ["a", "b"] and found["a"].dtype == np.float16
    assert found["a"].tolist() == [[2.5, 2.5]] * 2 and found["b"].tolist() == [[15, 15]] * 2
    with pytest.raises(SubModelsError, match="image c has no map"):
        out_of_fold_maps(maps, pd.Series({"c": 0}))


def test_a_set_found_clean_is_trusted_whole():
    maps = {name: np.random.default_rng(0).random((4, 4)) for name in "abcd"}
    assert trusted_patches(maps, list("abcd"), 0.7) == {}
    assert trusted_patches(maps, list("abc"), 0) == {}


def test_the_highest_patches_are_dropped_in_proportion_to_what_was_rejected():
    rng = np.random.default_rng(0)
    maps = {f"{number:03}": rng.random((10, 10)).astype(np.float16) for number in range(100)}
    kept = sorted(maps)[:80]
    masks = trusted_patches(maps, kept, 0.5)
    assert list(masks) == kept
    dropped = 1 - np.mean([mask.mean() for mask in masks.values()])
    assert dropped == pytest.approx(0.5 * 0.2, abs=0.01)
    assert min(maps[i][~masks[i]].min() for i in kept) >= max(maps[i][masks[i]].max() for i in kept)


def test_an_image_suspicious_everywhere_keeps_its_least_suspicious_patch():
    maps = {"bad": np.arange(10.0, 14).reshape(2, 2), "good": np.zeros((2, 2)), "rejected": np.ones((2, 2))}
    assert trusted_patches(maps, ["bad", "good"], 1.2)["bad"].tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.name)
def test_untrusted_defects_are_not_learnt(config):
    """Defects in the training set, masked: they score as if they had never been there, and far above normal ones."""
    everything = NORMAL + DEFECT
    whole = train(EncoderConfig(), config, MadeFeatures(), everything, 0).score(MadeFeatures(), DEFECT).values
    mask = np.ones((SIDE, SIDE), bool)
    mask[1:6, 4:] = False  # the defect and its neighbourhood
    masked = TrustedFeatures(MadeFeatures(), dict.fromkeys(DEFECT, mask))
    model = train(EncoderConfig(), config, masked, everything, 0)
    found = model.score(MadeFeatures(), DEFECT).values
    assert np.median(found) > 1.15 * np.median(whole)
    assert found.min() > np.median(model.score(MadeFeatures(), NORMAL[30:]).values)


@pytest.mark.parametrize("trusting", [0, 1, 2, 5])
def test_padim_judges_a_place_that_next_to_nobody_trusts_by_all_images(trusting):
    """A print that is odd in every image is masked in all of them: it is no anomaly for that."""
    mask = np.ones((SIDE, SIDE), bool)
    mask[2, 3] = False
    masks = dict.fromkeys(NORMAL[trusting:], mask)
    batch = next(MadeFeatures().batches(NORMAL[30:], ""))
    masked, whole = (
        train(EncoderConfig(), PadimConfig(dimensions=6), source, NORMAL[:30], 0).detector.patch_maps(batch)
        for source in (TrustedFeatures(MadeFeatures(), masks), MadeFeatures())
    )
    assert torch.allclose(masked, whole, rtol=0.01)


def test_dinomaly_learns_nothing_where_nothing_is_trusted():
    """Two different training sets, masked whole, give the same network: no gradient comes from what is not trusted."""
    config = DinomalyConfig(steps=4, batch_size=4, width=16, depth=2)
    networks = []
    for ids in (NORMAL[:10], NORMAL[10:20]):
        masks = dict.fromkeys(ids, np.zeros((SIDE // 2, SIDE // 2), bool))
        networks.append(
            train(EncoderConfig(), config, TrustedFeatures(MadeFeatures(), masks), ids, 0).detector.tensors()
        )
        plain = train(EncoderConfig(), config, MadeFeatures(), ids, 0).detector.tensors()
        assert any(not torch.equal(tensor, networks[0][name]) for name, tensor in plain.items())
    assert all(torch.equal(tensor, networks[1][name]) for name, tensor in networks[0].items())


def test_a_batch_without_masked_images_is_passed_on():
    (batch,) = TrustedFeatures(MadeFeatures(), {}).batches(NORMAL[:3], "")
    assert batch.trusted is None
    (batch,) = TrustedFeatures(MadeFeatures(), {NORMAL[1]: np.zeros((2, 2), bool)}).batches(NORMAL[:3], "")
    assert torch.equal(batch.trusted.flatten(1).any(dim=1), torch.tensor([True, False, True]))


def test_masks_fit_the_grid_of_another_detector():
    """Sub-models and final detector may have patches of other sizes."""
    mask = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]]], dtype=torch.bool)
    batch = Batch(("a",), (torch.zeros(1, 2, 4, 4),)).trusting(mask)
    assert batch.trusted_on((4, 4)) is mask
    assert batch.trusted_on((2, 2)).tolist() == [[[True, False], [False, True]]]
    assert batch.trusted_on((1, 1)).tolist() == [[[True]]]  # under half is trusted, but no image goes without
    finer = batch.trusted_on((8, 8))
    assert torch.equal(finer, mask.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2))
    assert Batch(("a",), ()).trusted_on((2, 2)) is None


@pytest.mark.parametrize("config", [*DETECTORS, DinomalyConfig(steps=4, batch_size=4, width=16, depth=2)])
@pytest.mark.parametrize("factor", [0.5, 2])
def test_detectors_learn_with_masks_of_another_grid(config, factor):
    side = int(SIDE * factor)
    rng = np.random.default_rng(0)
    trusted = {image_id: rng.random((side, side)) < 0.5 for image_id in NORMAL}
    features = MadeFeatures()
    masked = train(EncoderConfig(), config, TrustedFeatures(features, trusted), NORMAL, seed=0)
    whole = train(EncoderConfig(), config, features, NORMAL, seed=0)
    tensors = masked.detector.tensors()
    assert any(not torch.equal(tensors[name], value) for name, value in whole.detector.tensors().items())
