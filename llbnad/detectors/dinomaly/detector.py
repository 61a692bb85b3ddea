"""Dinomaly: a decoder learns to reconstruct a frozen encoder's features. A patch is anomalous where this fails.

References: Guo et al., CVPR 2025 (arXiv 2405.14325). LLBNAD (arXiv 2508.07441) uses Dinomaly as its detector. The
network and the loss are in `network`, learning rate and hard mining in `recipe`. With a ViT (two layers of one shape,
prefix tokens included) this is Dinomaly. Differences:

* Training counts steps, not epochs. A sub-model on a third of the images is therefore trained as long as the final
  detector.
* A CNN's layers have different shapes. Each layer is averaged down to the coarsest grid, and its vectors are scaled to
  a root mean square of 1.
* Training features are streamed from the cache in a random order. The memory does not grow with the number of images.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from llbnad.detectors.dinomaly.config import DinomalyConfig
from llbnad.errors import ConfigError, DataError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource

if TYPE_CHECKING:
    import torch

    from llbnad.detectors.dinomaly.network import DinomalyNetwork

VIT_DEPTH = 8
CNN_WIDTH, CNN_DEPTH = 64, 4  # a wider decoder with larger batches costs far more and gains little


class Dinomaly:
    """Reconstruction detector. Distances are 1 - cos, in [0, 2]."""

    config_class: ClassVar = DinomalyConfig

    def __init__(self, config: DinomalyConfig) -> None:
        self.config = config
        self.channels: tuple[int, ...] = ()  # C_l of each layer
        self._network: DinomalyNetwork | None = None

    @property
    def network(self) -> "DinomalyNetwork":
        """The trained network.

        Raises:
            DataError: the detector is not trained.
        """
        if self._network is None:
            raise DataError("dinomaly is not trained: call fit or restore first")
        return self._network

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Train the decoder on `image_ids` for the configured number of steps.

        Raises:
            DataError: there is no image.
            ConfigError: the decoder has fewer blocks than the encoder has layers.
        """
        import torch

        from llbnad.detectors.dinomaly import recipe
        from llbnad.detectors.dinomaly.network import reconstruction_loss

        image_ids = sorted(image_ids)
        if not image_ids:
            raise DataError("no training image for dinomaly: at least 1 is needed")
        drawn = _draw(image_ids, self.config.steps * self.config.batch_size, seed)
        # dropout and initialisers use torch's global generator: seed it here, and restore its state afterwards
        with torch.random.fork_rng(), self._threads():
            torch.manual_seed(seed)
            network = None
            for step, batch in enumerate(_steps(features.batches(drawn, "train dinomaly"), self.config.batch_size)):
                layers = tokens(batch)
                if network is None:
                    self.channels = tuple(layer.shape[-1] for layer in layers)
                    network = self._build().to(layers[0].device)
                    optimiser = recipe.optimiser(self.config, network)
                for group in optimiser.param_groups:
                    group["lr"] = recipe.learning_rate(self.config, step)
                with self._autocast(layers[0].device):
                    outputs = network(layers)
                masks, count = batch.trusted_on(batch_grid(batch)), math.prod(batch_grid(batch))
                targets, outputs = ([layer[:, -count:] for layer in part] for part in (layers, outputs))
                if masks is not None:  # an untrusted patch counts as reconstructed, so nothing is learnt from it
                    trusted = masks.flatten(1)[..., None].to(targets[0].device)  # (B, h·w, 1)
                    outputs = [torch.where(trusted, o, t.to(o.dtype)) for o, t in zip(outputs, targets, strict=True)]
                loss = reconstruction_loss(targets, outputs, *recipe.mining(self.config, step))
                optimiser.zero_grad()
                loss.backward()
                recipe.clip(self.config, network)
                optimiser.step()
        self._network = _frozen(network)

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Return 1 - cos between feature and reconstruction, averaged over the layers, (B, h, w)."""
        import torch

        from llbnad.detectors.dinomaly.network import token_distances

        size = batch_grid(batch)
        layers = tokens(batch)
        network = self.network
        if next(network.parameters()).device != layers[0].device:  # `to` alone would make torch's export twice as long
            network = network.to(layers[0].device)
        maps = []
        with torch.inference_mode(), self._threads(), self._autocast(layers[0].device):
            # One image at a time: the last digits of a product depend on its size, and a score must not depend on the
            # other images. An exported graph takes all images at once, because a number of parts would fix its batch
            # size.
            exporting = torch.compiler.is_exporting()
            for image in [layers] if exporting else zip(*(layer.split(1) for layer in layers), strict=True):
                pairs = [token_distances(*pair) for pair in zip(image, network(image), strict=True)]
                maps.append(torch.stack(pairs).mean(dim=0)[:, -math.prod(size) :])  # (1, h·w)
        return torch.cat(maps).reshape(-1, *size)

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the network's parameters and the channels of the layers that it reconstructs, by name."""
        import torch

        parameters = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        return {"channels": torch.tensor(self.channels), **parameters}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Build the network and restore its parameters from the result of `tensors`."""
        parameters = dict(tensors)
        self.channels = tuple(parameters.pop("channels").tolist())
        network = self._build()
        network.load_state_dict(parameters)
        self._network = _frozen(network)

    def _build(self) -> "DinomalyNetwork":
        from llbnad.detectors.dinomaly.network import DinomalyNetwork

        alike = len(set(self.channels)) == 1
        width, depth = (self.channels[0], VIT_DEPTH) if alike else (CNN_WIDTH, CNN_DEPTH)
        if self.config.width != "auto":
            width = self.config.width
        if self.config.depth != "auto":
            depth = self.config.depth
        if depth < len(self.channels):
            raise ConfigError(
                f"detector.depth {depth} is below the number of encoder.layers, {len(self.channels)}: "
                "every layer needs a decoder block"
            )
        return DinomalyNetwork(self.channels, width, depth, self.config.dropout)

    @contextmanager
    def _threads(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _autocast(self, device: "torch.device") -> "torch.autocast":
        import torch

        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


def tokens(batch: Batch) -> "list[torch.Tensor]":
    """Return a batch's layers as tokens on one grid: one tensor (B, p + h·w, C) per layer, prefix tokens first."""
    import torch
    from torch.nn import functional

    size = batch_grid(batch)
    alike = len({layer.shape[1:] for layer in batch.maps}) == 1
    layers = []
    for index, layer in enumerate(batch.maps):
        patches = functional.adaptive_avg_pool2d(layer, size).flatten(2).transpose(1, 2)  # (B, h·w, C)
        if not alike:
            patches = functional.rms_norm(patches, patches.shape[-1:])
        if batch.prefixes:
            patches = torch.cat([batch.prefixes[index], patches], dim=1)
        layers.append(patches.contiguous())
    return layers


def batch_grid(batch: Batch) -> tuple[int, int]:
    """Return the grid (h, w) of the coarsest layer."""
    height, width = min((layer.shape[-2:] for layer in batch.maps), key=math.prod)
    return height, width


def _draw(image_ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` ids: all images in a random order, again and again, each time in a new order."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    rounds = -(-count // len(image_ids))
    order = torch.cat([torch.randperm(len(image_ids), generator=generator) for _ in range(rounds)])
    return [image_ids[index] for index in order[:count].tolist()]


def _steps(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Yield the images of `batches` in batches of `size`. Images that do not fill the last batch are left out."""
    import torch

    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(len(part.image_ids) for part in waiting) >= size:
            joined = Batch(
                tuple(image_id for part in waiting for image_id in part.image_ids),
                tuple(torch.cat(layer) for layer in zip(*(part.maps for part in waiting), strict=True)),
                tuple(torch.cat(layer) for layer in zip(*(part.prefixes for part in waiting), strict=True)),
                _all_trusted(waiting),
                [frame for part in waiting for frame in part.frames],
            )
            yield _part(joined, slice(size))
            waiting = [_part(joined, slice(size, None))]


def _part(batch: Batch, part: slice) -> Batch:
    return Batch(
        batch.image_ids[part],
        tuple(layer[part] for layer in batch.maps),
        tuple(layer[part] for layer in batch.prefixes),
        None if batch.trusted is None else batch.trusted[part],
        batch.frames[part],
    )


def _all_trusted(parts: Sequence[Batch]) -> "torch.Tensor | None":
    """Return the masks of all parts as one mask, or None if no part has a mask. A part without a mask is trusted."""
    import torch

    if all(part.trusted is None for part in parts):
        return None
    size = next(part.trusted.shape[1:] for part in parts if part.trusted is not None)  # stage 1's grid
    whole = [torch.ones(len(part.image_ids), *size, dtype=torch.bool) for part in parts]
    return torch.cat([w if part.trusted is None else part.trusted for part, w in zip(parts, whole, strict=True)])


def _frozen(network: "DinomalyNetwork | None") -> "DinomalyNetwork":
    assert network is not None  # training has at least one step
    return network.eval().requires_grad_(False)
