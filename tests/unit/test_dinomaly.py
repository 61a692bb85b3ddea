"""Dinomaly's parts against their formulas, and the whole detector on made ViT tokens and on real solar cells."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from llbnad.config import EncoderConfig
from llbnad.detectors.dinomaly.detector import Dinomaly, DinomalyConfig, tokens
from llbnad.detectors.dinomaly.network import DinomalyNetwork, linear_attention, reconstruction_loss, token_distances
from llbnad.detectors.dinomaly.recipe import learning_rate, mining
from llbnad.detectors.dinomaly.stable_adamw import StableAdamW
from llbnad.errors import ConfigError, DataError
from llbnad.features.batch import Batch
from llbnad.features.store import FeatureStore
from llbnad.model.model import train
from llbnad.purification.patches import TrustedFeatures

SMALL = DinomalyConfig(steps=60, batch_size=8, width=32, depth=4)


class MadeTokens:
    """Two layers of equal shape with a prefix token each, as a ViT's; ids from 100 on carry a defect in a corner."""

    def __init__(self, batch_size=5):
        self.batch_size = batch_size

    def one(self, image_id):
        rng = np.random.default_rng(int(image_id))
        layers = rng.normal(0, 0.2, (2, 32, 6, 6)) + np.sin(np.arange(32))[:, None, None]
        if int(image_id) >= 100:
            layers[:, :, :2, :2] = rng.normal(0, 1, (2, 32, 1, 1))
        return [torch.tensor(part, dtype=torch.float32) for part in (layers, rng.normal(0, 1, (2, 1, 32)))]

    def batches(self, image_ids, description):
        for start in range(0, len(image_ids), self.batch_size):
            ids = tuple(image_ids[start : start + self.batch_size])
            maps, prefixes = (torch.stack(part) for part in zip(*map(self.one, ids), strict=True))
            yield Batch(ids, tuple(maps.unbind(1)), tuple(prefixes.unbind(1)))


NORMAL = [str(number) for number in range(30)]
DEFECT = [str(number) for number in range(100, 106)]


def fitted(config=SMALL, ids=NORMAL, seed=0, **features):
    detector = Dinomaly(config)
    detector.fit(MadeTokens(**features), ids, seed)
    return detector


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_linear_attention_is_the_naive_weighted_mean():
    query, key, value = (rand(2, 3, 7, 5, seed=seed) for seed in range(3))
    weights = torch.einsum("bhnc,bhmc->bhnm", nn.functional.elu(query) + 1, nn.functional.elu(key) + 1)
    expected = weights / weights.sum(dim=-1, keepdim=True) @ value
    assert torch.allclose(linear_attention(query, key, value), expected, atol=1e-5)


def test_linear_attention_survives_keys_that_vanish():
    out = linear_attention(rand(1, 1, 4, 3), torch.full((1, 1, 4, 3), -200.0), rand(1, 1, 4, 3))
    assert torch.isfinite(out).all()


def test_deepest_decoder_blocks_reconstruct_the_shallowest_layer():
    network = DinomalyNetwork((8, 8), width=8, depth=8, dropout=0.0)
    assert [list(group) for group in network.groups] == [[4, 5, 6, 7], [0, 1, 2, 3]]
    layers = [rand(2, 5, 8), rand(2, 5, 8, seed=1)]
    tokens_, outputs = network.bottleneck((layers[0] + layers[1]) / 2), []
    for block in network.blocks:
        tokens_ = block(tokens_)
        outputs.append(tokens_)
    first, second = network(layers)
    assert torch.allclose(first, sum(outputs[4:]) / 4, atol=1e-6)
    assert torch.allclose(second, sum(outputs[:4]) / 4, atol=1e-6)


def test_loss_is_one_minus_the_cosine_of_whole_images():
    target, output = rand(3, 6, 4), rand(3, 6, 4, seed=1)
    cosines = [torch.dot(a.flatten(), b.flatten()) / a.norm() / b.norm() for a, b in zip(target, output, strict=True)]
    assert reconstruction_loss([target], [output], 0.0, 0.0).item() == pytest.approx(1 - sum(cosines).item() / 3)
    assert reconstruction_loss([target], [3 * target], 0.0, 0.0).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.1])
def test_hard_mining_scales_exactly_the_gradient_of_points_below_the_quantile(factor):
    target = rand(2, 10, 4)
    plain, mined = (rand(2, 10, 4, seed=1).requires_grad_() for _ in range(2))
    # the network's output is not a leaf: the hook acts on what flows back from it
    one, other = (
        reconstruction_loss([target], [plain * 1.0], 0.0, factor),
        reconstruction_loss([target], [mined * 1.0], 0.75, factor),
    )
    assert one.item() == other.item()
    one.backward()
    other.backward()
    hardest = token_distances(target, plain.detach()).flatten().topk(5).indices  # a quarter of 20
    scale = torch.full((20,), factor)
    scale[hardest] = 1.0
    assert torch.allclose(mined.grad.flatten(0, 1), plain.grad.flatten(0, 1) * scale[:, None], atol=1e-8)


def test_stable_adamw_is_its_formula():
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimiser = StableAdamW([parameter], lr=0.1, weight_decay=0.01)
    value, mean, square, largest = parameter.detach().double().numpy().copy(), 0.0, 0.0, np.zeros(3)
    for step, gradient in enumerate(([1.0, 0.5, -2.0], [30.0, -4.0, 0.1], [0.0, 0.2, 0.3]), start=1):
        parameter.grad = torch.tensor(gradient)
        optimiser.step()
        g = np.array(gradient)
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        largest = np.maximum(largest, square)
        scale = np.sqrt(largest / (1 - 0.999**step)) + 1e-10
        rate = 0.1 / max(1.0, math.sqrt(np.mean((g / scale) ** 2)))
        value = value * (1 - 0.1 * 0.01) - rate * mean / (1 - 0.9**step) / scale
        assert np.allclose(parameter.detach().numpy(), value, rtol=1e-5)


def test_learning_rate_and_mining_follow_steps():
    official = DinomalyConfig(steps=5000)
    assert [learning_rate(official, step) for step in (0, 50, 100)] == pytest.approx([0, 1e-3, 2e-3])
    assert learning_rate(official, 2550) == pytest.approx(1.1e-3)
    assert learning_rate(official, 4999) == pytest.approx(2e-4, abs=1e-8)
    assert [mining(official, step) for step in (0, 500, 4000)] == [(0.0, 0.1), (0.45, 0.1), (0.9, 0.1)]
    theirs = DinomalyConfig(recipe="llbnad", steps=1000)
    assert [learning_rate(theirs, step) for step in (0, 799, 800, 999)] == [5e-3, 5e-3, 5e-4, 5e-4]
    assert mining(theirs, 0) == (0.9, 0.0)
    assert mining(DinomalyConfig(hard_mining=0), 4000)[0] == 0


@pytest.mark.parametrize("recipe", ["official", "llbnad"])
def test_planted_defect_is_found_in_vit_tokens(recipe):
    detector = fitted(SMALL.model_copy(update={"recipe": recipe}))
    (normal,) = MadeTokens(30).batches(NORMAL, "")
    (defect,) = MadeTokens(30).batches(DEFECT, "")
    maps = detector.patch_maps(defect)
    assert maps.shape == (6, 6, 6)
    assert maps[:, :2, :2].mean() > 3 * detector.patch_maps(normal).mean()
    rows, columns = np.unravel_index(maps.flatten(1).argmax(1).numpy(), (6, 6))
    assert (rows < 2).all() and (columns < 2).all()


def test_prefix_tokens_inform_the_decoder_but_are_not_scored():
    detector = fitted(SMALL.model_copy(update={"steps": 3}))
    (batch,) = MadeTokens(2).batches(NORMAL[:2], "")
    other = Batch(batch.image_ids, batch.maps, tuple(prefix + 5 for prefix in batch.prefixes))
    assert [layer.shape for layer in tokens(batch)] == [(2, 1 + 36, 32)] * 2
    assert not torch.equal(detector.patch_maps(batch), detector.patch_maps(other))


def test_same_seed_gives_the_same_bytes_whatever_the_order_or_reading():
    state = torch.random.get_rng_state()
    first, second = fitted().tensors(), fitted(ids=NORMAL[::-1], batch_size=13).tensors()
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator is left alone
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["bottleneck.expand.weight"], fitted(seed=1).tensors()["bottleneck.expand.weight"])


def test_bytes_do_not_depend_on_the_process_threads():
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            detector = fitted(SMALL.model_copy(update={"steps": 10}))
            (batch,) = MadeTokens(6).batches(DEFECT, "")
            found.append({**detector.tensors(), "maps": detector.patch_maps(batch)})
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_map_does_not_depend_on_batch_mates():
    detector = fitted(SMALL.model_copy(update={"steps": 3}))
    (batch,) = MadeTokens(9).batches(NORMAL[:9], "")
    (alone,) = MadeTokens(1).batches(NORMAL[4:5], "")
    assert torch.equal(detector.patch_maps(batch)[4], detector.patch_maps(alone)[0])


def test_bfloat16_is_another_training_to_a_similar_end():
    single, half = fitted(), fitted(SMALL.model_copy(update={"precision": "bfloat16"}))
    (batch,) = MadeTokens(6).batches(DEFECT, "")
    one, other = single.patch_maps(batch), half.patch_maps(batch)
    assert not torch.equal(one, other)
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.95


def test_sizes_follow_the_encoder():
    def built(channels, **settings):
        detector = Dinomaly(DinomalyConfig(**settings))
        detector.channels = channels
        return detector._build()

    vit, cnn = built((384, 384)), built((48, 120))
    assert (vit.bottleneck.expand.in_features, len(vit.blocks), vit.blocks[0].heads) == (384, 8, 6)
    assert (cnn.bottleneck.expand.in_features, len(cnn.blocks), cnn.blocks[0].heads) == (168, 4, 1)
    assert len(built((48, 120), depth=6).blocks) == 6
    with pytest.raises(ConfigError, match="every layer needs a decoder block"):
        built((48, 120), depth=1)
    with pytest.raises(ValueError, match="at least 1, or auto"):
        DinomalyConfig(depth=0)


def test_masks_of_another_grid_and_images_without_one_go_together():
    """Stage 1 had another patch grid, and some images, which people called normal, have no mask."""
    masks = {image_id: np.ones((12, 12), bool) for image_id in NORMAL[::3]}
    for size in (1, 2, 5):
        detector = Dinomaly(SMALL)
        detector.fit(TrustedFeatures(MadeTokens(size), masks), NORMAL, 0)
        assert detector.patch_maps(next(MadeTokens().batches(NORMAL[:2], ""))).isfinite().all()


def test_untrained_or_without_images():
    with pytest.raises(DataError, match="not trained"):
        Dinomaly(SMALL).tensors()
    with pytest.raises(DataError, match="at least 1"):
        fitted(ids=[])


def test_real_cells_with_a_cnn(tmp_path, few_cells):
    """Training lowers the distance to real features' reconstructions; saved and loaded, scores are the same."""
    manifest, root = few_cells
    encoder = EncoderConfig(input_size=96)
    features = FeatureStore(tmp_path / "cache", encoder, manifest, root)
    ids = manifest["image_id"][manifest["anomaly_class"] == "OK"].tolist()
    models = [train(encoder, SMALL.model_copy(update={"steps": steps}), features, ids, 0) for steps in (1, 80)]
    before, after = (model.score(features, ids) for model in models)
    assert np.median(after.values) < 0.5 * np.median(before.values)
    models[1].save(tmp_path / "model.safetensors")
    assert np.array_equal(
        type(models[1]).load(tmp_path / "model.safetensors").score(features, ids).values, after.values
    )
