"""What an encoder is: a frozen network from an RGB image to feature maps, and a fingerprint that names it exactly."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from llbnad.config import EncoderConfig


@dataclass(frozen=True)
class Recipe:
    """All that decides an encoder's output for an image."""

    config: EncoderConfig
    weights: str  # SHA-256 of the weights
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resampling: str = "bilinear, antialiased"
    arithmetic: str = ""  # named anew when the same weights are computed in another way, to other last digits

    @property
    def fingerprint(self) -> str:
        """Hex digest of the recipe; the feature cache's address."""
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
    """Features of a batch, a layer each, float16."""

    maps: list[np.ndarray]  # (B, C, h, w)
    prefixes: list[np.ndarray]  # of a ViT with class or register tokens: (B, p, C); else no item


class Encoder(Protocol):
    """A frozen network."""

    @classmethod
    def describe(cls, config: EncoderConfig) -> Recipe:
        """What decides the output, without importing torch."""
        ...

    def encode(self, images: np.ndarray) -> Encoded:
        """Features of uint8 RGB images (B, H, W, 3); an image's values do not depend on its batch mates."""
        ...


def fixed_batch(device: str) -> int:
    """Return how many images a forward pass sees on a kind of device (cpu, cuda …); one keeps a CPU busy."""
    return 1 if device == "cpu" else 16


def fixed_batches(images: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Batches of exactly `size` images, the last one padded with repetitions, and how many of each are real.

    A network's last digits depend on the batch's size: with one size for all, they do not depend on batch mates.
    """
    for start in range(0, len(images), size):
        chunk = images[start : start + size]
        count = len(chunk)
        yield np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)]), count
