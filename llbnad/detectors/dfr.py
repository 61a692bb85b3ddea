"""Deep feature reconstruction: an autoencoder of single patch features. The map is the reconstruction error of a patch.

References: Yang, Shi, Qi, "DFR: Deep Feature Reconstruction for Unsupervised Anomaly Segmentation" (arXiv 2012.07122).
As in the paper, all convolutions are 1 × 1, so a patch is rebuilt from itself alone, and the bottleneck has as many
channels as there are principal components in a given share of the variance. Differences: training patches are drawn at
random from all images instead of using whole images; there is one hidden layer with GELU on each side of the
bottleneck; training follows a one-cycle schedule of few steps.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from llbnad.config import DetectorConfig
from llbnad.detectors.base import draw_patches, patch_vectors
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch
    from torch import nn


class DfrConfig(DetectorConfig):
    """Settings of `Dfr`."""

    name: Literal["dfr"] = "dfr"
    patches: int = Field(65536, ge=1)  # patches drawn for training; bounds the memory
    latent: float = Field(0.8, gt=0, le=1)  # share of the variance that the bottleneck's components hold
    hidden: int = Field(256, ge=1)  # width of the layers beside the bottleneck
    steps: int = Field(250, ge=20)  # training steps; the first tenth warms up
    batch: int = Field(1024, ge=2)  # patches per step
    learning_rate: float = Field(2e-3, gt=0)  # the peak, reached after a tenth of the steps


class Dfr:
    """Reconstruction detector. Distances are root mean squares over channels, in units of the training patches' own."""

    config_class: ClassVar = DfrConfig

    def __init__(self, config: DfrConfig) -> None:
        import torch

        self.config = config
        self.mean = torch.empty(0)  # (C,)
        self.scale = torch.empty(0)  # (1,) root mean square of the centred training patches
        self.network: nn.Sequential | None = None

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Train the autoencoder on patches of `image_ids`.

        Raises:
            DataError: there is no image.
        """
        import torch
        from torch.nn import functional

        generator = torch.Generator().manual_seed(seed)
        patches = draw_patches(features, image_ids, self.config.patches, seed, "dfr")  # (P, C)
        self.mean = patches.mean(dim=0)
        self.scale = (patches - self.mean).square().mean().sqrt().clamp_min(1e-12).reshape(1)
        patches = (patches - self.mean) / self.scale
        network = _network(patches.shape[1], self.config.hidden, _components(patches, self.config.latent), seed)
        network.to(patches.device)

        rate, steps = self.config.learning_rate, self.config.steps
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
        for _ in track(range(steps), "train dfr", unit="step"):
            drawn = torch.randint(len(patches), (self.config.batch,), generator=generator)
            batch = patches[drawn.to(patches.device)]
            loss = functional.mse_loss(network(batch), batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        self.network = network.requires_grad_(False)

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Return reconstruction distances (B, h, w)."""
        if self.network is None:
            raise RuntimeError("dfr is not trained: call fit or restore first")
        patches = patch_vectors(batch)  # (B, h, w, C)
        patches = (patches - self.mean.to(patches.device)) / self.scale.to(patches.device)
        return (self.network.to(patches.device)(patches) - patches).square().mean(dim=-1).sqrt()

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return centre, scale and the autoencoder's weights, by name."""
        weights = self.network.state_dict() if self.network else {}
        named = {"mean": self.mean, "scale": self.scale, **{f"network.{name}": w for name, w in weights.items()}}
        return {name: tensor.cpu().contiguous() for name, tensor in named.items()}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the trained detector from the result of `tensors`."""
        self.mean, self.scale = tensors["mean"], tensors["scale"]
        weights = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        hidden, channels = weights["0.weight"].shape
        self.network = _network(channels, hidden, len(weights["2.weight"]), seed=0).requires_grad_(False)
        self.network.load_state_dict(weights)


def _network(channels: int, hidden: int, latent: int, seed: int) -> "nn.Sequential":
    """Return the untrained autoencoder: (…, C) -> (…, C). A linear layer on the last axis is a 1 × 1 convolution."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):  # initialise from our seed and leave the global generator alone
        torch.manual_seed(seed)
        encoder = (nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, latent))
        decoder = (nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, channels))
        return nn.Sequential(*encoder, *decoder)


def _components(centred: "torch.Tensor", share: float) -> int:
    """Return how many principal components of centred patches (P, C) hold `share` of their variance."""
    import torch

    variances = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp_min(0)
    return min(int((variances.cumsum(0) < share * variances.sum()).sum()) + 1, len(variances))
