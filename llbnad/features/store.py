"""The content-addressed feature cache: the frozen encoder sees every image once.

There is one safetensors file per image, `<cache>/<encoder fingerprint>/<id[:2]>/<image id>.safetensors`, in float16. It
holds one map per layer and, with a ViT, one tensor of prefix tokens per layer. A GPU has folders of its own beside the
CPU's.

The address is made of the image's bytes and of everything that decides the encoder's output. The name of an image above
8 bits ends in the window that it is read by, such as `@0.0..4095.0`. An entry can therefore never be stale, and
scenarios and sub-models share it. Entries may be deleted at any time: a missing entry is encoded again. Files are
renamed into place whole, so that two processes may fill the cache at once. Reading maps the file into memory.

An entry says whose features it holds, and the digest of its content. One that is damaged, stands under the name of
another image, or is of a release without digests is never used: it is encoded again, and a warning counts such entries.

Several machines may share what they encode (`llbnad.features.shared`): a missing entry is then looked for there first,
and one that is encoded here is put there. What comes from there is checked like every other entry.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llbnad.config import EncoderConfig
from llbnad.data.decode import image_digest
from llbnad.data.manifest import windows_of
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.encoders import create_encoder, recipe
from llbnad.encoders.base import Encoded, Encodes
from llbnad.encoders.canvases import canvas_of
from llbnad.errors import DataError, IdentityError, ImageChangedError
from llbnad.features.batch import Batch, DeferredBatch, Features, as_features, as_images
from llbnad.features.derived import DerivedMemory
from llbnad.features.shared import SharedCache
from llbnad.utils.files import replacing
from llbnad.utils.hashing import digest_of
from llbnad.utils.prefetch import prefetch
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

LOG = logging.getLogger(__name__)
FORMAT = "llbnad features 1"
DERIVED_BYTES = 512 << 20  # memory for what detectors derive from features: a thousand images of 28 × 28 patches


class EntryError(Exception):
    """An entry of the cache is not what its name says."""


class FeatureStore:
    """Features of a manifest's images, read from the cache, or encoded if the cache lacks them.

    Args:
        cache: folder of the cache.
        config: settings of the encoder.
        manifest: the images. Their files are read only if a feature is missing.
        image_root: folder that the manifest's paths are relative to.
        device: torch's name of the device.
        batch_size: images read and scored at once.
        shared: address of a cache that machines share beside their own (`SharedCache`); None if there is none.
        region: the part of each image that counts; features do not depend on it. None: the whole image.

    Raises:
        ConfigError: the encoder or the address is unknown.
    """

    def __init__(
        self,
        cache: Path,
        config: EncoderConfig,
        manifest: pd.DataFrame,
        image_root: Path,
        device: str = "cpu",
        batch_size: int = 16,
        shared: str | None = None,
        region: RegionOfInterest | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self.canvas = canvas_of(config)
        self.region = region
        self.frames = self.canvas.frames(manifest, region)  # by image id; empty if every patch counts
        self.batch_size = self.canvas.batch_size(batch_size)
        self.fingerprint = recipe(config).fingerprint
        kind = device.partition(":")[0]  # kinds of device round differently; a run must depend on its own kind only
        self.folder = cache / (self.fingerprint if kind == "cpu" else f"{self.fingerprint}-{kind}")
        self.image_root = image_root
        self._shared = None if shared is None else SharedCache(f"{shared.rstrip('/')}/{self.folder.name}")
        self._paths: Mapping[str, str] = dict(zip(manifest["image_id"], manifest["path"], strict=True))
        self._windows = windows_of(manifest)
        self._encoder: Encodes | None = None
        self._memory = DerivedMemory(DERIVED_BYTES) if kind == "cpu" else None  # a GPU is as fast without

    @property
    def image_ids(self) -> list[str]:
        """Ids of all images of the manifest, sorted."""
        return sorted(self._paths)

    def ensure(self, image_ids: Sequence[str]) -> int:
        """Fill the cache with the images of `image_ids` that it lacks, or whose entry is damaged.

        Returns:
            how many of them were encoded; the others came from the shared cache.

        Raises:
            IdentityError: an image is not in the manifest, or the bytes of its file changed.
            DataError: an image file is missing or unreadable.
        """
        self._check(image_ids)
        missing, damaged = set(self._missing(image_ids)), set()
        for image_id in sorted(set(image_ids) - missing):
            try:
                self._open(image_id)
            except FileNotFoundError:
                missing.add(image_id)  # somebody deleted the entry meanwhile
            except (EntryError, OSError):
                damaged.add(image_id)
        encoded = self._fill(sorted(missing | damaged))
        if damaged:
            kinds = "damaged, another image's or of an older release"
            LOG.warning("%d damaged cache entries were made again (%s): %s", len(damaged), kinds, self.folder)
        return encoded

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield batches of `image_ids` in their order, `batch_size` images at a time, and show progress.

        Nothing is encoded if only images are asked for. When features are asked for the first time, all images of
        `image_ids` that are not cached are fetched or encoded.

        Raises:
            IdentityError: an image is not in the manifest.
        """
        self._check(image_ids)
        filled = False

        def features(chunk: tuple[str, ...]) -> Features:
            nonlocal filled
            if not filled:
                self._fill(self._missing(image_ids))
                filled = True
            try:
                return self._stacked(chunk)
            except (EntryError, OSError):
                self.ensure(image_ids)  # where one is damaged, others may be: all are looked at, and counted once
            try:
                return self._stacked(chunk)
            except EntryError as error:
                raise DataError(f"{error}, though it was just written: check the disk") from None

        starts = range(0, len(image_ids), self.batch_size)
        for start in track(starts, description, unit="batch"):
            chunk = tuple(image_ids[start : start + self.batch_size])
            frames = [self.frames[image_id] for image_id in chunk] if self.frames else []
            yield DeferredBatch(chunk, partial(features, chunk), partial(self._images, chunk), frames, self._memory)

    def _missing(self, image_ids: Sequence[str]) -> list[str]:
        return sorted(image_id for image_id in set(image_ids) if not self._file(image_id).exists())

    def _check(self, image_ids: Sequence[str]) -> None:
        unknown = [image_id for image_id in image_ids if image_id not in self._paths]
        if unknown:
            raise IdentityError(f"{len(unknown)} images are not in the manifest, first {unknown[0]}")

    def _images(self, image_ids: tuple[str, ...]) -> "torch.Tensor":
        return as_images(np.stack(next(prefetch(self._load, [image_ids]))), self.device)

    def _stacked(self, image_ids: tuple[str, ...]) -> Features:
        images = [self._open(image_id) for image_id in image_ids]
        stacked = ([np.stack(layer) for layer in zip(*kind, strict=True)] for kind in zip(*images, strict=True))
        return as_features(Encoded(*stacked), self.device)

    def _file(self, image_id: str) -> Path:
        window = self._windows.get(image_id)
        read_by = "" if window is None else "@{!r}..{!r}".format(*window)
        return self.folder / image_id[:2] / f"{image_id}{read_by}.safetensors"

    def _open(self, image_id: str) -> Encoded:
        """Return the layers of one image.

        Raises:
            EntryError: the entry is damaged, of another image or encoder, or of a release without digests.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._file(image_id), framework="np") as stored:
                told = (stored.metadata() or {}).get("llbnad", "")
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dict
        except (SafetensorError, TypeError, ValueError) as error:  # a type that NumPy lacks is another error
            raise EntryError(f"{self._file(image_id)} is damaged ({error})") from None
        if told != self._description(image_id, tensors):
            raise EntryError(f"{self._file(image_id)} does not hold what was written for its image")
        maps, prefixes = (
            [tensors[name] for layer in self.config.layers if (name := f"{kind}{layer}") in tensors]
            for kind in ("layer", "prefix")
        )
        return Encoded(maps, prefixes)

    def _description(self, image_id: str, tensors: Mapping[str, np.ndarray]) -> str:
        """Return what an entry says of itself: image and window, encoder, and a digest of these and of its tensors."""
        told = {"format": FORMAT, "entry": self._file(image_id).stem, "encoder": self.folder.name}
        parts = ((f"{name} {array.dtype} {list(array.shape)}", array.data) for name, array in sorted(tensors.items()))
        return json.dumps({**told, "digest": digest_of(json.dumps(told, sort_keys=True), parts)}, sort_keys=True)

    def _fill(self, image_ids: Sequence[str]) -> int:
        """Fetch or encode the images of `image_ids`, and return how many were encoded."""
        left = self._fetch(image_ids)
        self._encode(left)
        return len(left)

    def _fetch(self, image_ids: Sequence[str]) -> list[str]:
        """Copy entries from the shared cache; return the ids of those that it lacks or that are damaged there."""
        wanted = {self._shared_name(image_id): image_id for image_id in image_ids}
        fetched, damaged = set(), 0
        for name, content in self._shared.read(list(wanted)) if self._shared else ():
            image_id = wanted[name]
            with replacing(self._file(image_id)) as temporary:
                temporary.write_bytes(content)
            try:
                self._open(image_id)
                fetched.add(image_id)
            except EntryError:
                damaged += 1  # it is encoded next, here and there
        if damaged and self._shared:
            LOG.warning("%d entries of the shared cache are damaged and made again: %s", damaged, self._shared.address)
        return [image_id for image_id in image_ids if image_id not in fetched]

    def _shared_name(self, image_id: str) -> str:
        return self._file(image_id).relative_to(self.folder).as_posix()

    def _encode(self, image_ids: Sequence[str]) -> None:
        from safetensors.numpy import save

        if not image_ids:
            return
        if self._encoder is None:
            self._encoder = create_encoder(self.config, self.device)
        chunks = [image_ids[start : start + self.batch_size] for start in range(0, len(image_ids), self.batch_size)]
        for chunk, images in zip(track(chunks, "encode", unit="batch"), prefetch(self._load, chunks), strict=True):
            encoded = self._encoder.encode(np.stack(images))
            made = {}
            for position, image_id in enumerate(chunk):
                tensors = {
                    f"{kind}{layer}": np.ascontiguousarray(values[position])
                    for kind, arrays in (("layer", encoded.maps), ("prefix", encoded.prefixes))
                    for layer, values in zip(self.config.layers, arrays, strict=bool(arrays))
                }
                content = save(tensors, {"llbnad": self._description(image_id, tensors)})
                with replacing(self._file(image_id)) as temporary:
                    temporary.write_bytes(content)
                made[self._shared_name(image_id)] = content
            if self._shared:
                self._shared.write(made)

    def _load(self, image_id: str) -> np.ndarray:
        path = self.image_root / self._paths[image_id]
        image, _ = self.canvas.load(path, self._windows.get(image_id))
        if image_digest(path) != image_id:
            raise ImageChangedError(
                f"{path} is not the image the manifest knows: its bytes changed; "
                "restore the file, or read the data set again"
            )
        return image
