"""A trained model in one safetensors file: encoder recipe, detector, learnt tensors and thresholds.

The file is complete in itself. Its metadata holds the configurations as JSON and the encoder's fingerprint. Loading it
with another encoder (other weights, another version) is an error, not a wrong score.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.config import DetectorConfig, EncoderConfig, Files, RegionConfig, Window
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.detectors import DETECTORS, create_detector
from llbnad.detectors.base import Detector, judge
from llbnad.encoders import ENCODERS, recipe, registered
from llbnad.errors import DataError
from llbnad.features.source import FeatureSource
from llbnad.model.content import (
    VIEW_FORMAT,
    WINDOW_FORMAT,
    content_digest,
    format_of,
    opened,
    refuse_damaged,
    refuse_modules,
)
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.scores import Scores
from llbnad.model.threshold import Threshold
from llbnad.utils.files import replacing
from llbnad.utils.hashing import stable_number

if TYPE_CHECKING:
    import torch

INCOMPLETE = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)  # what a missing part leads to
CALIBRATION = "threshold.scores"  # name of the calibration scores among the detector's tensors
LEVELS = "pixel_threshold.levels"  # name of the region levels of the same images
MASK = "region.mask"  # name of the region's mask among them


@dataclass(frozen=True)
class Model:
    """A detector together with the encoder it was trained on."""

    encoder: EncoderConfig
    config: DetectorConfig
    detector: Detector
    threshold: Threshold | None = None
    window: Window | None = None  # by which its training images above 8 bits were read; None if there were none
    pixel_threshold: PixelThreshold | None = None  # where regions begin; None in files of earlier releases
    region: RegionOfInterest | None = None  # the part of each image that it learnt and scores; None: the whole image

    def score(self, features: FeatureSource, image_ids: Sequence[str], description: str = "score") -> Scores:
        """Return the image scores of `image_ids`. The maps are not kept."""
        ids: list[str] = []
        scores = np.empty(len(image_ids), np.float32)
        for batch in features.batches(image_ids, description):
            new = slice(len(ids), len(ids) + len(batch.image_ids))
            ids.extend(batch.image_ids)
            scores[new] = judge(self.detector, batch)[1].cpu().numpy()
        return Scores(tuple(ids), scores)

    def score_with_maps(
        self,
        features: FeatureSource,
        image_ids: Sequence[str],
        description: str = "score",
        precision: type[np.floating] = np.float16,
    ) -> tuple[Scores, dict[str, np.ndarray]]:
        """Return the image scores of `image_ids`, and their patch maps (h, w) by image id.

        In float16, a map of 28 × 28 patches takes 1.5 KB per image.
        """
        ids: list[str] = []
        scores = np.empty(len(image_ids), np.float32)
        # one allocation for all maps: small arrays between a batch's large arrays would make the heap grow
        maps = np.empty((0, 0, 0), precision)  # (N, h, w)
        for batch in features.batches(image_ids, description):
            found, judged = judge(self.detector, batch)
            if not ids:
                maps = np.empty((len(image_ids), *found.shape[1:]), precision)
            new = slice(len(ids), len(ids) + len(batch.image_ids))
            ids.extend(batch.image_ids)
            scores[new] = judged.cpu().numpy()
            maps[new] = stored_maps(found, precision)
        return Scores(tuple(ids), scores), dict(zip(ids, maps, strict=True))

    def digest(self) -> str:
        """Return the SHA-256 of the detector's tensors. Equal detectors have equal digests."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.detector.tensors().items()):
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.numpy().tobytes())
        return found.hexdigest()

    def save(self, path: Path) -> None:
        """Write the model file. Equal models give equal bytes."""
        import torch
        from safetensors.torch import save

        content: dict[str, Any] = {
            "format": format_of(self.encoder.view, self.window, self.region),
            "encoder": self.encoder.model_dump(mode="json"),
            "encoder_fingerprint": recipe(self.encoder).fingerprint,
            "detector": self.config.model_dump(mode="json"),
        }
        if self.window is not None:
            content["window"] = list(self.window)
        tensors = self.detector.tensors()
        if self.region is not None:
            content["region"] = self.region.config.model_dump(mode="json")
            if self.region.mask is not None:
                tensors = {**tensors, MASK: torch.from_numpy(self.region.mask)}
        if self.threshold is not None:
            content["threshold"] = self.threshold.summary()
            tensors = {**tensors, CALIBRATION: torch.from_numpy(self.threshold.scores)}
        if self.pixel_threshold is not None:
            content["pixel_threshold"] = self.pixel_threshold.summary()
            tensors = {**tensors, LEVELS: torch.from_numpy(self.pixel_threshold.levels.scores)}
        content["digest"] = content_digest(content, tensors)
        # one metadata key, because safetensors promises no order for several
        payload = save(tensors, metadata={"llbnad": json.dumps(content, sort_keys=True)})
        with replacing(path) as temporary:
            temporary.write_bytes(payload)

    @classmethod
    def load(cls, path: Path, device: str = "cpu", plugins: bool = False) -> "Model":
        """Read a model file.

        A file may name a detector or an encoder as `module:Class`. Importing a module runs its code, and the file may
        come from anywhere. Such a module must therefore be imported already (by your program, or because your settings
        name it), unless `plugins` is set. Names that installed packages offer as entry points need no permission.

        Args:
            path: a file that `save` wrote.
            device: torch's name of the device.
            plugins: import the modules that the file names. Only Python's path is searched, and nothing is installed.

        Raises:
            ModelMissingError: the file does not exist.
            PluginRefusedError: the file names a module that is not imported, and `plugins` is not set.
            DataError: the file is no model file, needs a class that is not installed, or was trained with other weights
                of its encoder than the installed weights.
        """
        with opened(path, "pt", device) as (stored, content):
            encoder, config = _settings(path, content, plugins)
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dict
        refuse_damaged(path, content, tensors)
        try:
            if recipe(encoder).fingerprint != content["encoder_fingerprint"]:
                raise DataError(
                    f"{path} was trained on other weights of {encoder.name}: train again with the installed ones"
                )
            calibration, levels = tensors.pop(CALIBRATION, None), tensors.pop(LEVELS, None)
            mask = tensors.pop(MASK, None)
            detector = create_detector(config)
            detector.restore(tensors)
            window, region = _window(content), _region(content, None if mask is None else mask.cpu().numpy())
            threshold = pixels = None
            if calibration is not None:
                threshold = Threshold.restore(content["threshold"], calibration.cpu().numpy())
            if levels is not None:
                pixels = PixelThreshold.restore(content["pixel_threshold"], levels.cpu().numpy())
            return cls(encoder, config, detector, threshold, window, pixels, region)
        except INCOMPLETE as error:
            raise DataError(
                f"{path} is no complete model file ({type(error).__name__}: {' '.join(str(error).split())}): "
                "restore the file, or train again"
            ) from None


def _settings(path: Path, content: Mapping[str, Any], plugins: bool) -> tuple[EncoderConfig, DetectorConfig]:
    """Return the settings of encoder and detector in a model file, after checking that their classes are available."""
    try:
        if not plugins:
            refuse_modules(path, content)
        encoder, settings = EncoderConfig.model_validate(content["encoder"]), content["detector"]
        ENCODERS.get(registered(encoder.name))
        return encoder, DETECTORS.get(settings["name"]).config_class.model_validate(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path} was made by another release, or with classes of your own: {said}") from None


def _window(content: Mapping[str, Any]) -> Window | None:
    """Return the window in a model file's description. Raise ValueError if it is none."""
    if content["format"] not in (WINDOW_FORMAT, VIEW_FORMAT):
        if "window" in content:
            raise ValueError(f"its format {content['format']!r} has no window")
        return None
    if content["format"] == VIEW_FORMAT and "window" not in content:
        return None
    window = Files.model_validate({"intensity": content["window"]}).intensity
    if isinstance(window, str):
        raise ValueError(f"window is {window!r}; expected two numbers")
    return window


def _region(content: Mapping[str, Any], mask: np.ndarray | None) -> RegionOfInterest | None:
    """Return the region in a model file's description. Raise ValueError if it is none."""
    if "region" not in content:
        return None
    if content["format"] != VIEW_FORMAT:
        raise ValueError(f"its format {content['format']!r} has no region")
    config = RegionConfig.model_validate(content["region"])
    if (config.mask is None) != (mask is None):
        raise ValueError("its region lacks a mask, or has one that it does not name")
    if mask is not None and (mask.ndim != 2 or mask.dtype != bool or not mask.any()):
        raise ValueError(f"the region's mask has shape {mask.shape} and type {mask.dtype}; expected (h, w) bool")
    return RegionOfInterest(config, mask)


def stored_maps(maps: "torch.Tensor", precision: type[np.floating]) -> np.ndarray:
    """Return patch maps (B, h, w) as an array in `precision`.

    Raises:
        DataError: a value is not finite, or too large for `precision`.
    """
    with np.errstate(over="ignore"):
        found = maps.cpu().numpy().astype(precision, copy=False)
    if not np.isfinite(found).all():
        raise DataError(
            f"the detector's maps hold values from {float(maps.min()):.3g} to {float(maps.max()):.3g}; expected finite "
            f"ones within ±{float(np.finfo(precision).max):.3g}: choose other settings of the detector"
        )
    return found


def train(
    encoder: EncoderConfig, config: DetectorConfig, features: FeatureSource, image_ids: Sequence[str], seed: int
) -> Model:
    """Train a new detector on `image_ids` and return it as a model without a threshold."""
    detector = create_detector(config)
    detector.fit(features, image_ids, seed)
    return Model(encoder, config, detector)


def derived_seed(seed: int, purpose: str) -> int:
    """Return an independent seed for one use of a scenario's seed, such as one sub-model."""
    return stable_number(purpose, seed, "seed") % (1 << 31)
