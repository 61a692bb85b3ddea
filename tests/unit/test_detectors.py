"""Detectors on analytic features: a planted defect is found where it lies; a saved model is the same model."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.neighbors import LocalOutlierFactor

from llbnad.config import EncoderConfig
from llbnad.detectors.base import embed, image_scores
from llbnad.detectors.dfr import DfrConfig
from llbnad.detectors.dinomaly.config import DinomalyConfig
from llbnad.detectors.padim import PadimConfig, _whitening
from llbnad.detectors.patchcore.coreset import farthest_first
from llbnad.detectors.patchcore.detector import PatchcoreConfig, nearest_distances, nearest_neighbours
from llbnad.detectors.softpatch.detector import SoftpatchConfig
from llbnad.detectors.softpatch.outlier_factors import local_outlier_factor
from llbnad.errors import DataError
from llbnad.features.batch import Batch
from llbnad.model.model import Model, derived_seed, train
from llbnad.utils import working_memory
from llbnad.utils.working_memory import limit

CONFIGS = [
    PatchcoreConfig(memory_size=400),
    PatchcoreConfig(memory="density", memory_size=400),
    PatchcoreConfig(memory_size=400, neighbours=3),
    PatchcoreConfig(memory_size=400, vectors="raw"),
    PadimConfig(dimensions=6),
    PatchcoreConfig(memory="greedy", memory_size=400),
    SoftpatchConfig(memory_size=400),
    SoftpatchConfig(discriminator="gaussian", memory_size=400, memory="greedy"),
    SoftpatchConfig(discriminator="nearest", memory_size=400, soft_weights=False),
    DinomalyConfig(steps=60, batch_size=8, width=32, depth=4),
    DfrConfig(patches=2048, hidden=32, steps=200, batch=256),
]
SIDE = 8


class MadeFeatures:
    """Features made from the image id's number: a common direction plus noise; ids from 1000 on carry a defect."""

    def __init__(self, batch_size=4):
        self.batch_size = batch_size

    def one(self, image_id):
        rng = np.random.default_rng(int(image_id))
        fine = rng.normal(0, 0.1, (6, SIDE, SIDE)) + np.arange(1, 7)[:, None, None]
        coarse = rng.normal(0, 0.1, (4, SIDE // 2, SIDE // 2)) + 1
        if int(image_id) >= 1000:
            fine[:, 2:5, 5:8] *= rng.normal(0, 3, 6)[:, None, None]  # every defect is another one
        return torch.tensor(fine, dtype=torch.float32), torch.tensor(coarse, dtype=torch.float32)

    def batches(self, image_ids, description):
        for start in range(0, len(image_ids), self.batch_size):
            chunk = tuple(image_ids[start : start + self.batch_size])
            yield Batch(chunk, tuple(torch.stack(layer) for layer in zip(*map(self.one, chunk), strict=True)))


NORMAL = [f"{number:04d}" for number in range(40)]
DEFECT = [f"{number:04d}" for number in range(1000, 1010)]


def fitted(config, ids=NORMAL, seed=0, **features):
    return train(EncoderConfig(), config, MadeFeatures(**features), ids, seed)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_planted_defect_is_found_where_it_lies(config):
    model = fitted(config)
    scores = model.score(MadeFeatures(), NORMAL[30:] + DEFECT)
    assert scores.of(DEFECT).min() > scores.of(NORMAL[30:]).max()
    maps = torch.cat([model.detector.patch_maps(batch) for batch in MadeFeatures().batches(DEFECT, "")])
    side = maps.shape[-1]  # the grid of the finest layer, or of the coarsest
    assert maps.shape == (10, side, side) and side in (SIDE, SIDE // 2)
    rows, columns = np.unravel_index(maps.flatten(1).argmax(1).numpy(), (side, side))
    rows, columns = rows * SIDE // side, columns * SIDE // side
    assert ((rows >= 1) & (rows <= 5) & (columns >= 4)).all()


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_order_and_batch_size_of_training_images_do_not_matter(config):
    first, second = fitted(config), fitted(config, NORMAL[::-1], batch_size=7)
    for name, tensor in first.detector.tensors().items():
        assert torch.allclose(tensor, second.detector.tensors()[name], atol=1e-4), name


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_saved_model_scores_the_same_and_equal_models_have_equal_bytes(tmp_path, config):
    model = fitted(config)
    model.save(tmp_path / "a.safetensors")
    fitted(config).save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = Model.load(tmp_path / "a.safetensors")
    ids = NORMAL[:3] + DEFECT[:3]
    assert np.array_equal(loaded.score(MadeFeatures(), ids).values, model.score(MadeFeatures(), ids).values)


def test_another_seed_is_another_memory():
    first, second = (fitted(CONFIGS[0], seed=seed).detector.tensors()["memory"] for seed in (0, 1))
    assert not torch.equal(first, second)
    assert derived_seed(0, "sub_model 0") != derived_seed(0, "sub_model 1")


def test_density_memory_leaves_rare_patches_out():
    contaminated = NORMAL + DEFECT
    plain, dense = (fitted(config, contaminated).score(MadeFeatures(), DEFECT).values for config in CONFIGS[:2])
    assert np.median(dense) > 2 * np.median(plain)


def test_greedy_takes_outliers_first():
    rng = torch.Generator().manual_seed(0)
    points = torch.randn(500, 200, generator=rng) * 0.01
    outliers = {17, 100, 499}
    points[list(outliers), :3] += 5 * torch.eye(3)
    assert set(farthest_first(points, 4, rng).tolist()) == {0, *outliers}
    assert farthest_first(torch.zeros(6, 2), 6, rng).sort().values.tolist() == list(range(6))  # equals, none twice


def test_greedy_memory_amplifies_contamination():
    contaminated = NORMAL + DEFECT[:2]
    random = PatchcoreConfig(memory_size=100, oversampling=20)
    maps = torch.cat([embed(batch.maps) for batch in MadeFeatures().batches(DEFECT[:2], "")])
    planted = maps[:, 2:5, 5:8].flatten(0, 2)  # 18 of 2688 patches
    shares = []
    for config in (random, random.model_copy(update={"memory": "greedy"})):
        memory = fitted(config, contaminated).detector.tensors()["memory"]
        shares.append((nearest_distances(memory, planted, 1) < 1e-3).float().mean())
    assert shares[1] > 5 * max(shares[0], 18 / 2688)


@pytest.mark.parametrize("discriminator", ["lof", "gaussian", "nearest"])
def test_softpatch_discards_noisy_patches(discriminator):
    planted = torch.cat([embed(batch.maps)[:, 3, 6] for batch in MadeFeatures().batches(DEFECT[:5], "")])
    held = {}
    for discard in (0.0, 0.15):
        # the memory could hold all patches: only the discriminator keeps them out
        config = SoftpatchConfig(discriminator=discriminator, memory_size=10_000, discard=discard)
        memory = fitted(config, NORMAL + DEFECT[:5]).detector.tensors()["memory"]
        assert len(memory) == (1 - discard) * 45 * SIDE * SIDE
        held[discard] = int((nearest_distances(planted, memory, 1) < 1e-3).sum())
    assert held == {0.0: 5, 0.15: 0}


@pytest.mark.parametrize("discriminator", ["lof", "gaussian", "nearest"])
def test_softpatch_bears_a_background_that_is_the_same_in_all_images(discriminator):
    class Constant(MadeFeatures):
        def one(self, image_id):
            fine, coarse = super().one(image_id)
            return fine * (torch.arange(SIDE) > SIDE // 2) + (torch.arange(SIDE) <= SIDE // 2), torch.ones_like(coarse)

    config = SoftpatchConfig(discriminator=discriminator, memory_size=400)
    model = train(EncoderConfig(), config, Constant(), NORMAL, 0)
    assert model.detector.weights.min() >= 0 and model.detector.weights.max() < 1e3


def test_padim_s_gaussians_are_the_same_a_block_at_a_time():
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(64, 90, 60, generator=random, dtype=torch.float64)
    covariance = vectors.transpose(1, 2) @ vectors / 90
    whole = _whitening(covariance)
    assert torch.allclose(
        whole.double() @ covariance @ whole.double().transpose(1, 2), torch.eye(60).double(), atol=1e-4
    )
    try:
        limit(1)  # MiB: 36 of the 64 positions
        assert torch.equal(_whitening(covariance), whole)
    finally:
        limit(0)


def test_padim_bears_images_that_are_all_the_same():
    class Frozen(MadeFeatures):
        def one(self, image_id):
            return super().one(NORMAL[0] if int(image_id) < 1000 else image_id)

    model = train(EncoderConfig(), PadimConfig(dimensions=6), Frozen(), NORMAL[:6], 0)
    scores = model.score(Frozen(), [NORMAL[7], DEFECT[0]]).values
    assert scores[0] == 0 < scores[1] < np.inf


def test_maps_that_float16_cannot_hold_are_refused():
    class Large:
        def patch_maps(self, batch):
            return torch.full((len(batch.image_ids), 2, 2), 1e6)

    model = Model(EncoderConfig(), PadimConfig(), Large())
    with pytest.raises(DataError, match=r"from 1e\+06 to 1e\+06; expected finite ones within ±6.55e\+04"):
        model.score_with_maps(MadeFeatures(), NORMAL)
    assert model.score_with_maps(MadeFeatures(), NORMAL, precision=np.float32)[0].values.max() == 1e6


def test_softpatch_distrusts_the_outliers_it_kept():
    config = SoftpatchConfig(memory_size=10_000, discard=0)
    soft, hard = (fitted(config.model_copy(update={"soft_weights": s}), NORMAL + DEFECT[:5]) for s in (True, False))
    noisy = next(MadeFeatures().batches(DEFECT[:5], ""))
    clean = next(MadeFeatures().batches(["0077"], ""))
    torch.manual_seed(0)
    for batch, low, high in ((noisy, 1.2, 100), (clean, 0.8, 1.2)):
        shifted = Batch(batch.image_ids, tuple(maps + 0.02 * torch.randn_like(maps) for maps in batch.maps))
        ratio = (soft.detector.patch_maps(shifted) / hard.detector.patch_maps(shifted))[:, 3, 6]
        assert ((ratio > low) & (ratio < high)).all()


def test_local_outlier_factor_is_scikit_learns():
    groups = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0))
    for group, factors in zip(groups, local_outlier_factor(groups, 6), strict=True):
        expected = -LocalOutlierFactor(n_neighbors=6).fit(group.numpy()).negative_outlier_factor_
        assert np.allclose(factors, expected, rtol=1e-4)
    assert torch.isfinite(local_outlier_factor(torch.ones(1, 4, 5), 6)).all()


@pytest.mark.parametrize("discriminator", ["lof", "gaussian", "nearest"])
@pytest.mark.parametrize("space", [20_000, 4_000])  # bytes: three positions at once; half of one
def test_softpatch_judges_alike_in_blocks(monkeypatch, discriminator, space):
    config = SoftpatchConfig(discriminator=discriminator, memory_size=300)
    whole = fitted(config).detector.tensors()
    monkeypatch.setattr(working_memory, "_bytes", space)
    blocks = fitted(config).detector.tensors()
    assert torch.equal(whole["memory"], blocks["memory"])
    assert torch.allclose(whole["weights"], blocks["weights"])


def test_dfr_reconstructs_what_it_saw_and_not_the_defect():
    config = CONFIGS[-1]
    maps = torch.cat([fitted(config).detector.patch_maps(batch) for batch in MadeFeatures().batches(DEFECT, "")])
    defect, normal = maps[:, 3, 6], maps[:, :, :3].flatten(1).amax(1)
    assert (defect > 2 * normal).all()
    narrow, wide = (len(fitted(config.model_copy(update={"latent": share})).detector.tensors()["network.2.bias"])
                    for share in (0.5, 1.0))  # fmt: skip
    assert narrow < wide == 10


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    for config in CONFIGS:
        fitted(config)
    assert torch.equal(torch.rand(3), expected)


def test_distances_do_not_depend_on_the_memory_limit_or_on_how_many_are_asked():
    generator = torch.Generator().manual_seed(0)
    queries, memory = torch.rand(3001, 40, generator=generator), torch.rand(2000, 40, generator=generator)
    usual = nearest_distances(queries, memory, 3)  # blocks of 3001 / 2
    try:
        for mebibytes in (1, 1000):  # blocks of some 100 rows; a single one
            limit(mebibytes)
            assert torch.equal(nearest_distances(queries, memory, 3), usual)
    finally:
        limit(0)
    assert torch.equal(nearest_distances(queries[:500], memory, 3), usual[:500])
    assert torch.equal(nearest_neighbours(queries, memory)[0], usual[:, 0])


def test_nearest_distances_are_exact():
    rng = torch.Generator().manual_seed(0)
    queries, memory = torch.randn(50, 7, generator=rng), torch.randn(90, 7, generator=rng)
    expected = torch.cdist(queries, memory).sort(dim=1).values
    assert torch.allclose(nearest_distances(queries, memory, 1), expected[:, :1], atol=1e-3)
    assert torch.allclose(nearest_distances(queries, memory, 5), expected[:, :5], atol=1e-3)
    assert nearest_distances(queries, memory[:2], 5).shape == (50, 2)


def test_embedding_has_unit_length_and_layers_weigh_alike():
    maps = next(iter(MadeFeatures().batches(NORMAL[:2], ""))).maps
    patches = embed((maps[0] * 1000, maps[1]))
    assert patches.shape == (2, SIDE, SIDE, 10)
    assert torch.allclose(patches.norm(dim=-1), torch.ones(2, SIDE, SIDE))
    assert torch.allclose(patches, embed(maps), atol=1e-5)


def test_raw_embedding_keeps_lengths():
    maps = next(iter(MadeFeatures().batches(NORMAL[:2], ""))).maps
    patches, doubled = (embed((scale * maps[0], maps[1]), "raw") for scale in (1, 2))
    coarse = maps[1].shape[1]
    assert torch.allclose(doubled[..., :-coarse], 2 * patches[..., :-coarse])
    assert torch.equal(doubled[..., -coarse:], patches[..., -coarse:])
    flat = embed((torch.ones_like(maps[0]),), "raw")
    assert torch.equal(flat, torch.ones_like(flat))  # a mean over neighbours, at the border as well
    memory = fitted(PatchcoreConfig(memory_size=50, vectors="raw")).detector.tensors()["memory"]
    every = torch.cat([embed(batch.maps, "raw").flatten(0, 2) for batch in MadeFeatures().batches(NORMAL, "")])
    assert (memory[:, None] == every).all(dim=2).any(dim=1).all()


def test_image_score_is_the_mean_of_the_top_percent():
    maps = torch.arange(400.0).reshape(1, 20, 20)
    assert image_scores(maps).item() == pytest.approx((399 + 398 + 397 + 396) / 4)
    assert image_scores(maps[:, :2, :2]).item() == 21  # at least one patch


def test_nothing_to_train_on():
    with pytest.raises(DataError, match="at least 1"):
        fitted(CONFIGS[0], [])
    with pytest.raises(DataError, match="at least 2"):
        fitted(PadimConfig(dimensions=6), NORMAL[:1])


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="no model at"):
        Model.load(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(DataError, match="is not a model file"):
        Model.load(tmp_path / "text.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="it names no format; expected"):
        Model.load(tmp_path / "other.safetensors")
    model = fitted(CONFIGS[0])
    content = {"format": "llbnad model 1", "encoder": model.encoder.model_dump(mode="json"),
               "encoder_fingerprint": "0" * 64, "detector": model.config.model_dump(mode="json")}  # fmt: skip
    save_file(model.detector.tensors(), tmp_path / "old.safetensors", metadata={"llbnad": json.dumps(content)})
    with pytest.raises(DataError, match="trained on other weights"):
        Model.load(tmp_path / "old.safetensors")
    content["detector"] = {"name": "of_my_own"}
    save_file(model.detector.tensors(), tmp_path / "own.safetensors", metadata={"llbnad": json.dumps(content)})
    with pytest.raises(DataError, match=r"own\.safetensors was made .* 'of_my_own'"):
        Model.load(tmp_path / "own.safetensors")
