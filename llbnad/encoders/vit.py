"""The parts that all ViT encoders share: which blocks make a layer, and how a timm network encodes.

A ViT has no strides to name its layers by. Its depth is divided into twelfths, which form the stages 1 … 4: twelfths
0–1, 2–5, 6–9 and 10–11. A layer is the mean of a stage's blocks, taken from the raw residual stream without the final
norm. Layers 2 and 3, the default, are therefore Dinomaly's pair (arXiv 2405.14325). In a network of 12 blocks they are
the means of blocks 2 … 5 and 6 … 9. In a network of 24 blocks they are the means of every second block (4, 6, 8, 10 and
12, 14, 16, 18), as in Dinomaly.
"""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.encoders.base import Encoded, Layers, Recipe, fixed_batch, fixed_batches
from llbnad.errors import ConfigError

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TWELFTHS = {1: (0, 1), 2: (2, 3, 4, 5), 3: (6, 7, 8, 9), 4: (10, 11)}


def blocks(layer: int, depth: int) -> list[int]:
    """Return the numbers of the blocks whose mean is `layer`, in a network of `depth` blocks."""
    return sorted({twelfth * depth // 12 for twelfth in TWELFTHS[layer]})


def check(config: EncoderConfig, patch: int) -> None:
    """Raise `ConfigError` unless `config` fits a ViT with patches of `patch` pixels."""
    if config.layers[0] < min(TWELFTHS) or config.layers[-1] > max(TWELFTHS):
        raise ConfigError(f"encoder.layers {list(config.layers)}: a ViT has the stages 1 … {max(TWELFTHS)}")
    if config.input_size % patch:
        near = round(config.input_size / patch) * patch
        raise ConfigError(
            f"encoder.input_size {config.input_size} is not a multiple of {config.name}'s patch, {patch} px: try {near}"
        )


def patch_size(name: str) -> int:
    """Return the side of a patch in pixels, read from timm's name for a ViT.

    Raises:
        ConfigError: the name does not hold a patch size.
    """
    found = re.search(r"_patch(\d+)", name)
    if not found:
        raise ConfigError(
            f"encoder {name!r} is not one of timm's ViTs: expected a name like vit_base_patch16_224.augreg_in21k"
        )
    return int(found[1])


class VitEncoder:
    """A timm VisionTransformer on a device, ready to encode."""

    def __init__(self, recipe: Recipe, network: Any, device: str) -> None:
        import torch

        self.recipe = recipe
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.groups = [blocks(layer, len(network.blocks)) for layer in recipe.config.layers]

    def encode(self, images: np.ndarray) -> Encoded:
        """Encode images: (B, H, W, 3) uint8 -> maps (B, C, h, w) and prefix tokens (B, p, C) float16 per layer."""
        import torch

        parts = []
        with torch.inference_mode():
            for chunk, count in fixed_batches(images, fixed_batch(self.device.type)):
                maps, prefixes = self.layers(torch.from_numpy(chunk).to(self.device))
                parts.append([layer[:count].half().cpu().numpy() for layer in (*maps, *prefixes)])
        arrays = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
        return Encoded(arrays[: len(self.groups)], arrays[len(self.groups) :])

    def layers(self, images: "torch.Tensor") -> Layers:
        """Compute the features before rounding: (B, H, W, 3) uint8 -> maps (B, C, h, w) and prefix tokens (B, p, C).

        The export traces this method.
        """
        import torch

        wanted = sorted({block for group in self.groups for block in group})
        mean, std = (torch.tensor(value, device=images.device) for value in (self.recipe.mean, self.recipe.std))
        batch = images.float().div(255).sub(mean).div(std)
        streams = self.network.forward_intermediates(
            batch.permute(0, 3, 1, 2).contiguous(),
            indices=wanted,
            return_prefix_tokens=True,
            intermediates_only=True,
            stop_early=True,
        )
        # timm returns only maps if the network has no prefix tokens
        kinds = list(zip(*streams, strict=True)) if isinstance(streams[0], tuple) else [streams]
        means = [
            [torch.stack([stream[block] for block in group]).mean(dim=0) for group in self.groups]
            for stream in (dict(zip(wanted, kind, strict=True)) for kind in kinds)
        ]
        return means[0], means[1] if len(means) > 1 else []
