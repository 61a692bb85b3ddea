"""The content-addressed feature cache: every image meets the frozen encoder once in its life.

One safetensors file per image, `<cache>/<encoder fingerprint>/<id[:2]>/<image id>.safetensors`, fp16, one tensor a
layer, and with a ViT one of its prefix tokens; a GPU has folders of its own beside the CPU's. The address holds the
image's bytes and all that decides the encoder's output, so an entry can never be stale, scenarios and sub-models share
it, and it may be deleted at any time: what is missing is encoded again. Files are renamed into place whole, so two
processes may fill the cache at once; reading maps the file into memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llbnad.config import EncoderConfig
from llbnad.data.images import load_square
from llbnad.encoders import create_encoder, recipe
from llbnad.encoders.base import Encoded, Encoder
from llbnad.errors import IdentityError, ImageChangedError
from llbnad.features.batch import Batch, DeferredBatch, Features, as_features, as_images
from llbnad.utils.files import file_digest, replacing
from llbnad.utils.prefetch import prefetch
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch


class FeatureStore:
    """Features of a manifest's images, from the cache where they are, from the encoder where they are not.

    Args:
        cache: the cache's folder.
        config: the encoder's.
        manifest: the images, by id; their files are read only if a feature is missing.
        image_root: what the manifest's paths are relative to.
        device: torch's name of the device.
        batch_size: images read and scored at once.
    """

    def __init__(
        self,
        cache: Path,
        config: EncoderConfig,
        manifest: pd.DataFrame,
        image_root: Path,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        self.config = config
        self.device = device
        self.batch_size = batch_size
        self.fingerprint = recipe(config).fingerprint
        kind = device.partition(":")[0]  # another kind rounds otherwise, and a run depends on its own only
        self.folder = cache / (self.fingerprint if kind == "cpu" else f"{self.fingerprint}-{kind}")
        self.image_root = image_root
        self._paths: Mapping[str, str] = dict(zip(manifest["image_id"], manifest["path"], strict=True))
        self._encoder: Encoder | None = None

    @property
    def image_ids(self) -> list[str]:
        """All images of the manifest, sorted."""
        return sorted(self._paths)

    def ensure(self, image_ids: Sequence[str]) -> int:
        """Encode those of `image_ids` that are not cached yet and return how many these were."""
        self._check(image_ids)
        missing = sorted(image_id for image_id in set(image_ids) if not self._file(image_id).exists())
        if missing:
            self._encode(missing)
        return len(missing)

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """The images `image_ids` in their order, `batch_size` at a time, with progress.

        The first batch of which features are asked has all of `image_ids` encoded, as far as they are not cached.
        """
        self._check(image_ids)
        encoded = False

        def features(chunk: tuple[str, ...]) -> Features:
            nonlocal encoded
            if not encoded:
                self.ensure(image_ids)
                encoded = True
            return self._stacked(chunk)

        starts = range(0, len(image_ids), self.batch_size)
        for start in track(starts, description, unit="batch"):
            chunk = tuple(image_ids[start : start + self.batch_size])
            yield DeferredBatch(chunk, partial(features, chunk), partial(self._images, chunk))

    def _check(self, image_ids: Sequence[str]) -> None:
        unknown = [image_id for image_id in image_ids if image_id not in self._paths]
        if unknown:
            raise IdentityError(f"{len(unknown)} images are not in the manifest, first {unknown[0]}")

    def _images(self, image_ids: tuple[str, ...]) -> "torch.Tensor":
        return as_images(np.stack(next(prefetch(self._load, [image_ids]))), self.device)

    def _stacked(self, image_ids: tuple[str, ...]) -> Features:
        images = [self._read(image_id) for image_id in image_ids]
        stacked = ([np.stack(layer) for layer in zip(*kind, strict=True)] for kind in zip(*images, strict=True))
        return as_features(Encoded(*stacked), self.device)

    def _file(self, image_id: str) -> Path:
        return self.folder / image_id[:2] / f"{image_id}.safetensors"

    def _read(self, image_id: str) -> Encoded:
        """One image's layers, without the batch axis."""
        from safetensors import SafetensorError

        try:
            return self._open(image_id)
        except (SafetensorError, FileNotFoundError):
            self._encode([image_id])  # damaged or deleted meanwhile: the cache is rebuilt, never trusted
            return self._open(image_id)

    def _open(self, image_id: str) -> Encoded:
        from safetensors import safe_open

        with safe_open(self._file(image_id), framework="np") as tensors:
            stored = set(tensors.keys())
            maps, prefixes = (
                [tensors.get_tensor(name) for layer in self.config.layers if (name := f"{kind}{layer}") in stored]
                for kind in ("layer", "prefix")
            )
        return Encoded(maps, prefixes)

    def _encode(self, image_ids: Sequence[str]) -> None:
        from safetensors.numpy import save_file

        if self._encoder is None:
            self._encoder = create_encoder(self.config, self.device)
        chunks = [image_ids[start : start + self.batch_size] for start in range(0, len(image_ids), self.batch_size)]
        for chunk, images in zip(track(chunks, "encode", unit="batch"), prefetch(self._load, chunks), strict=True):
            encoded = self._encoder.encode(np.stack(images))
            for position, image_id in enumerate(chunk):
                tensors = {
                    f"{kind}{layer}": np.ascontiguousarray(values[position])
                    for kind, arrays in (("layer", encoded.maps), ("prefix", encoded.prefixes))
                    for layer, values in zip(self.config.layers, arrays, strict=bool(arrays))
                }
                with replacing(self._file(image_id)) as temporary:
                    save_file(tensors, temporary)

    def _load(self, image_id: str) -> np.ndarray:
        path = self.image_root / self._paths[image_id]
        image = load_square(path, self.config.input_size)
        if file_digest(path) != image_id:
            raise ImageChangedError(
                f"{path} is not the image the manifest knows: its bytes changed; "
                "restore the file, or read the data set again"
            )
        return image


class PooledFeatures:
    """Another source's feature maps, averaged over `factor` × `factor` positions where a map is large enough.

    The finest map shrinks by `factor`; coarser ones only as far as they are finer than that. Everything is read once
    and kept in memory as float16: for studies that train many detectors on the same few thousand images.
    """

    def __init__(self, features: "FeatureStore", factor: int) -> None:
        self.features = features
        self.factor = factor
        self._known: dict[str, tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]] = {}  # maps and prefixes

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """The batches of the source, pooled."""

        missing = [image_id for image_id in dict.fromkeys(image_ids) if image_id not in self._known]
        if missing:
            for batch in self.features.batches(missing, "pool"):
                maps, prefixes = self._pooled(batch), [prefix.half().cpu() for prefix in batch.prefixes]
                for number, image_id in enumerate(batch.image_ids):
                    self._known[image_id] = tuple(m[number] for m in maps), tuple(p[number] for p in prefixes)
        size = self.features.batch_size
        for start in range(0, len(image_ids), size):
            chunk = tuple(image_ids[start : start + size])
            known = [self._known[image_id] for image_id in chunk]
            yield Batch(chunk, self._stacked([one[0] for one in known]), self._stacked([one[1] for one in known]))

    def _stacked(self, images: "Sequence[tuple[torch.Tensor, ...]]") -> "tuple[torch.Tensor, ...]":
        import torch

        layers = zip(*images, strict=True)
        return tuple(torch.stack(layer).to(self.features.device).float() for layer in layers)

    def _pooled(self, batch: Batch) -> "list[torch.Tensor]":
        from torch.nn import functional

        target = batch.maps[0].shape[-1] // self.factor
        return [
            functional.adaptive_avg_pool2d(layer, min(target, layer.shape[-1])).half().cpu() for layer in batch.maps
        ]
