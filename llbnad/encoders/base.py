"""The protocol of encoders: a frozen network from RGB images to feature maps, named exactly by a fingerprint."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from llbnad.config import EncoderConfig

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides an encoder's output for an image."""

    config: EncoderConfig
    weights: str  # SHA-256 of the weights
    mean: tuple[float, float, float]  # per channel, subtracted from pixel values in [0, 1]
    std: tuple[float, float, float]  # per channel, divides the difference
    resampling: str = "bilinear, antialiased"
    arithmetic: str = ""  # changes when the same weights are computed in a way that gives other last digits
    cell: int = 32  # pixels by which tiles may be shifted: a multiple of the stride of every layer

    @property
    def fingerprint(self) -> str:
        """Hex digest of the recipe, which is a folder's name in the feature cache."""
        content = {
            "config": self.config.model_dump(mode="json"),
            "weights": self.weights,
            "mean": self.mean,
            "std": self.std,
            "resampling": self.resampling,
            "arithmetic": self.arithmetic,
            "stored": "float16",
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Encoded(NamedTuple):
    """Features of a batch, float16: one array per layer."""

    maps: list[np.ndarray]  # (B, C, h, w)
    prefixes: list[np.ndarray]  # (B, p, C) class and register tokens; an empty list for networks without them


# an encoder's output before it is rounded to float16: maps (B, C, h, w) and prefixes (B, p, C) float32, as in `Encoded`
Layers = tuple["list[torch.Tensor]", "list[torch.Tensor]"]


class Encodes(Protocol):
    """Anything that turns images into features."""

    def encode(self, images: np.ndarray) -> Encoded:
        """Return the features of uint8 RGB images (B, H, W, 3). They must not depend on other images of the batch."""
        ...


class Encoder(Encodes, Protocol):
    """A frozen network. Its `encode` reads squares of `input_size` pixels."""

    @classmethod
    def describe(cls, config: EncoderConfig) -> Recipe:
        """Return everything that decides the output, without importing torch."""
        ...


def fixed_batch(device: str) -> int:
    """Return how many images a forward pass sees on a kind of device (cpu, cuda …). One image keeps a CPU busy."""
    return 1 if device == "cpu" else 16


def fixed_batches(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield batches of exactly `size` images, and how many images of each batch are real.

    The last batch is padded with repetitions of its last image. The last digits of a network's output depend on the
    size of the batch. One size for all batches makes an image's features independent of the other images.

    Args:
        images: (N, H, W, 3).
        size: images per batch.
    """
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        count = len(chunk)
        yield np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)]), count
