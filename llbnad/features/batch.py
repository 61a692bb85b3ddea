"""Batches of images as detectors see them: feature maps, prefix tokens and the images themselves.

Nothing is read before it is asked for, so that a detector with a network of its own does not pay for features.
"""

from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from llbnad.data.canvas import Frame
from llbnad.encoders.base import Encoded, Encodes
from llbnad.errors import DataError
from llbnad.features.derived import DerivedMemory

if TYPE_CHECKING:
    import torch

Features = tuple["tuple[torch.Tensor, ...]", "tuple[torch.Tensor, ...]"]  # maps and prefixes, see `Batch`


class Batch:
    """Features of a few images. Treat a batch as immutable.

    Args:
        image_ids: ids of the B images.
        maps: one tensor (B, C, h, w) float32 per layer, on the store's device.
        prefixes: one tensor (B, p, C) of class and register tokens per layer of a ViT; empty for other networks.
        trusted: (B, h, w) bool on stage 1's patch grid: the patches to learn from; None means all patches.
        frames: where each image lies on its canvas and which part counts; empty if every patch counts.
        memory: keeps what `once` makes for later batches of the same images; None: it is kept with this batch alone.
    """

    def __init__(
        self,
        image_ids: tuple[str, ...],
        maps: "tuple[torch.Tensor, ...]",
        prefixes: "tuple[torch.Tensor, ...]" = (),
        trusted: "torch.Tensor | None" = None,
        frames: Sequence[Frame] = (),
        memory: DerivedMemory | None = None,
    ) -> None:
        self.image_ids = image_ids
        self.trusted = trusted
        self.frames = tuple(frames)
        self._features: Features = (maps, prefixes)
        self._memory = memory
        self._derived: dict[str, torch.Tensor] = {}

    def __repr__(self) -> str:
        """Return a text with the image ids. No feature is read, because a log line must not encode anything."""
        return f"{type(self).__name__}(image_ids={self.image_ids!r})"

    @property
    def maps(self) -> "tuple[torch.Tensor, ...]":
        """One feature map (B, C, h, w) per layer."""
        return self._features[0]

    @property
    def prefixes(self) -> "tuple[torch.Tensor, ...]":
        """One tensor of prefix tokens (B, p, C) per layer of a ViT."""
        return self._features[1]

    @property
    def images(self) -> "torch.Tensor":
        """The images themselves on their canvas, (B, 3, H, W) uint8 RGB, on the store's device.

        Raises:
            DataError: the features came without their images.
        """
        raise DataError("these features come without their images: this detector needs a FeatureStore")

    def once(self, name: str, make: "Callable[[], torch.Tensor]") -> "torch.Tensor":
        """Return the value stored under `name`; call `make` and store its result on first use.

        Callers must not modify it: several detectors share it.

        Args:
            name: says what is made, and with which settings.
            make: returns one row per image (B, …); a row depends on the features of its image alone.
        """
        if name not in self._derived:
            found = None if self._memory is None else self._memory.get(name, self.image_ids)
            if found is None:
                found = make()
                if self._memory is not None:
                    self._memory.keep(name, self.image_ids, found)
            self._derived[name] = found
        return self._derived[name]

    def trusting(self, trusted: "torch.Tensor") -> "Batch":
        """Return the same batch with `trusted` set; nothing is read or encoded for it."""
        other = copy(self)
        other.trusted = trusted
        return other

    def trusted_on(self, grid: Sequence[int]) -> "torch.Tensor | None":
        """Return `trusted` on the patch grid (h, w) of a detector: (B, h, w) bool, or None if all patches are trusted.

        Where the grid differs from stage 1's, a patch is trusted if at least half of its area is. If no patch of an
        image reaches half, the patches with the largest trusted share are trusted. No patch outside is trusted.
        """
        import torch

        trusted, inside = self.trusted, self.inside_on(grid)
        if trusted is not None and trusted.shape[1:] != torch.Size(grid):
            share = torch.nn.functional.interpolate(trusted[:, None].float(), size=tuple(grid), mode="area")[:, 0]
            trusted = share >= share.amax(dim=(1, 2), keepdim=True).clamp(max=0.5)
        if trusted is None or inside is None:
            return inside if trusted is None else trusted
        return trusted & inside.to(trusted.device)

    def inside_on(self, grid: Sequence[int]) -> "torch.Tensor | None":
        """Return which patches of a grid (h, w) count: (B, h, w) bool, or None if all do.

        Raises:
            DataError: an image has no patch that counts; the message names it.
        """
        import torch

        if not self.frames:
            return None
        found = []
        for image_id, frame in zip(self.image_ids, self.frames, strict=True):
            try:
                found.append(frame.inside((grid[0], grid[1])))
            except DataError as error:
                raise DataError(f"image {image_id}: {error}") from None
        return torch.from_numpy(np.stack(found))


class DeferredBatch(Batch):
    """A batch that encodes, reads and decodes only what a detector asks for, and does so once.

    Args:
        image_ids: ids of the B images.
        features: returns maps and prefixes, see `Batch`.
        images: returns the images (B, 3, H, W) uint8.
        frames: see `Batch`.
        memory: see `Batch`.
    """

    def __init__(
        self,
        image_ids: tuple[str, ...],
        features: Callable[[], Features],
        images: "Callable[[], torch.Tensor]",
        frames: Sequence[Frame] = (),
        memory: DerivedMemory | None = None,
    ) -> None:
        self.image_ids = image_ids
        self.trusted = None
        self.frames = tuple(frames)
        self._memory = memory
        self._derived = {}
        self._read_features, self._read_images = features, images

    @cached_property
    def _features(self) -> Features:  # type: ignore[override]  # an attribute of `Batch`, read on first use here
        return self._read_features()

    @cached_property
    def images(self) -> "torch.Tensor":
        """The images, decoded on first use; (B, 3, H, W) uint8."""
        return self._read_images()


def as_features(encoded: Encoded, device: str) -> Features:
    """Return an encoder's output as contiguous float32 tensors on `device`.

    One memory layout gives sums one order, so that results do not depend on where features came from.
    """
    import torch

    maps, prefixes = (
        tuple(torch.from_numpy(layer).to(device).float().contiguous() for layer in kind) for kind in encoded
    )
    return maps, prefixes


def as_images(images: np.ndarray, device: str) -> "torch.Tensor":
    """Move images to `device`: (B, H, W, 3) uint8 -> (B, 3, H, W) uint8."""
    import torch

    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()


def fresh_batch(
    names: tuple[str, ...], images: np.ndarray, encoder: Encodes, device: str, frames: Sequence[Frame] = ()
) -> Batch:
    """Return a batch of images (B, H, W, 3) uint8 that are in no manifest. They are encoded on first use.

    Args:
        names: one name per image, in the place of image ids.
        images: (B, H, W, 3) uint8.
        encoder: encodes the images.
        device: torch's name of the device.
        frames: see `Batch`.
    """
    return DeferredBatch(
        names, lambda: as_features(encoder.encode(images), device), lambda: as_images(images, device), frames
    )
