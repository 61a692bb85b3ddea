"""What all ViT encoders share: which blocks make a layer, and encoding with a timm network.

A ViT has no strides to name its layers by. Its blocks, in twelfths of the depth, form the stages 1 … 4: twelfths 0–1,
2–5, 6–9 and 10–11. A layer is the mean of a stage's blocks: raw residual stream, no final norm. So layers 2 and 3, the
default, are Dinomaly's pair (arXiv 2405.14325): of 12 blocks the means of 2 … 5 and 6 … 9; of 24, as there, of every
second block (4, 6, 8, 10 and 12, 14, 16, 18).
"""

import re
from typing import Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.encoders.base import Encoded, Recipe, fixed_batch, fixed_batches
from llbnad.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TWELFTHS = {1: (0, 1), 2: (2, 3, 4, 5), 3: (6, 7, 8, 9), 4: (10, 11)}


def blocks(layer: int, depth: int) -> list[int]:
    """Numbers of the blocks whose mean is `layer`, in a network of `depth` blocks."""
    return sorted({twelfth * depth // 12 for twelfth in TWELFTHS[layer]})


def check(config: EncoderConfig, patch: int) -> None:
    """Raise `ConfigError` unless a ViT with patches of `patch` pixels can have these settings."""
    if config.layers[0] < min(TWELFTHS) or config.layers[-1] > max(TWELFTHS):
        raise ConfigError(f"encoder.layers {list(config.layers)}: a ViT has the stages 1 … {max(TWELFTHS)}")
    if config.input_size % patch:
        near = round(config.input_size / patch) * patch
        raise ConfigError(
            f"encoder.input_size {config.input_size} is no multiple of {config.name}'s patch of {patch} px: try {near}"
        )


def patch_size(name: str) -> int:
    """Of timm's name for a ViT."""
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
        """(B, H, W, 3) uint8 -> per layer maps (B, C, h, w) and prefix tokens (B, p, C), float16."""
        import torch

        size = fixed_batch(self.device.type)
        wanted = sorted({block for group in self.groups for block in group})
        mean, std = (torch.tensor(value, device=self.device) for value in (self.recipe.mean, self.recipe.std))
        parts = []
        with torch.inference_mode():
            for chunk, count in fixed_batches(images, size):
                batch = torch.from_numpy(chunk).to(self.device).float().div_(255).sub_(mean).div_(std)
                streams = self.network.forward_intermediates(
                    batch.permute(0, 3, 1, 2).contiguous(),
                    indices=wanted,
                    return_prefix_tokens=True,
                    intermediates_only=True,
                    stop_early=True,
                )
                # without prefix tokens timm gives maps alone
                kinds = list(zip(*streams, strict=True)) if isinstance(streams[0], tuple) else [streams]
                of_block = [dict(zip(wanted, kind, strict=True)) for kind in kinds]
                means = [
                    torch.stack([stream[block] for block in group]).mean(dim=0)[:count].half().cpu().numpy()
                    for stream in of_block
                    for group in self.groups
                ]
                parts.append(means)
        arrays = [np.concatenate(layer) for layer in zip(*parts, strict=True)]
        return Encoded(arrays[: len(self.groups)], arrays[len(self.groups) :])
