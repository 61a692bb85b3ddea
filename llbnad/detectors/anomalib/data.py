"""The data module that anomalib's models train on: images in memory. Importing it needs anomalib."""

from collections.abc import Iterator
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from llbnad.utils.progress import track


class TrainingImages(LightningDataModule):
    """Unlabelled images, which all count as normal for the model.

    Args:
        images: (N, 3, H, W) uint8.
        batch: images per step.
        seed: decides the order of the images, which changes in every epoch.
        description: text shown with the progress.
    """

    def __init__(self, images: torch.Tensor, batch: int, seed: int, description: str) -> None:
        super().__init__()
        self.images, self.seed, self.description = images, seed, description
        self.train_batch_size = batch  # anomalib's models look for this name

    def train_dataloader(self) -> "TrackedLoader":
        """Return a loader of batches in random order."""
        loader = TrackedLoader(
            self.images,  # type: ignore[arg-type]  # a tensor has what a map-style dataset needs
            self.train_batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(self.seed),
            collate_fn=_as_batch,
        )
        loader.description = self.description
        return loader


class TrackedLoader(DataLoader):
    """A loader that shows the progress of each epoch."""

    description = "train"

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return track(super().__iter__(), self.description, total=len(self), unit="batch")


def _as_batch(images: list[torch.Tensor]) -> ImageBatch:
    stacked = torch.stack(images)
    return ImageBatch(image=stacked.float() / 255, gt_label=torch.zeros(len(stacked), dtype=torch.bool))
