"""A trained model in one safetensors file: encoder recipe, detector, learnt tensors and threshold.

The file is complete in itself. Its metadata holds the configurations as JSON and the encoder's fingerprint. Loading it
with another encoder (other weights, another version) is an error, not a wrong score.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llbnad.config import DetectorConfig, EncoderConfig
from llbnad.detectors import DETECTORS, create_detector
from llbnad.detectors.base import Detector, image_scores
from llbnad.encoders import recipe
from llbnad.errors import DataError, ModelMissingError
from llbnad.features.source import FeatureSource
from llbnad.model.scores import Scores
from llbnad.model.threshold import Threshold
from llbnad.utils.files import replacing
from llbnad.utils.hashing import stable_number

if TYPE_CHECKING:
    import torch

FORMAT = "llbnad model 1"
CALIBRATION = "threshold.scores"  # name of the calibration scores among the detector's tensors


@dataclass(frozen=True)
class Model:
    """A detector together with the encoder it was trained on."""

    encoder: EncoderConfig
    config: DetectorConfig
    detector: Detector
    threshold: Threshold | None = None

    def score(self, features: FeatureSource, image_ids: Sequence[str], description: str = "score") -> Scores:
        """Return the image scores of `image_ids`. The maps are not kept."""
        ids: list[str] = []
        scores = np.empty(len(image_ids), np.float32)
        for batch in features.batches(image_ids, description):
            new = slice(len(ids), len(ids) + len(batch.image_ids))
            ids.extend(batch.image_ids)
            scores[new] = image_scores(self.detector.patch_maps(batch)).cpu().numpy()
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
            found = self.detector.patch_maps(batch)
            if not ids:
                maps = np.empty((len(image_ids), *found.shape[1:]), precision)
            new = slice(len(ids), len(ids) + len(batch.image_ids))
            ids.extend(batch.image_ids)
            scores[new] = image_scores(found).cpu().numpy()
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

        content = {
            "format": FORMAT,
            "encoder": self.encoder.model_dump(mode="json"),
            "encoder_fingerprint": recipe(self.encoder).fingerprint,
            "detector": self.config.model_dump(mode="json"),
        }
        tensors = self.detector.tensors()
        if self.threshold is not None:
            content["threshold"] = self.threshold.summary()
            tensors = {**tensors, CALIBRATION: torch.from_numpy(self.threshold.scores)}
        # one metadata key, because safetensors promises no order for several
        payload = save(tensors, metadata={"llbnad": json.dumps(content, sort_keys=True)})
        with replacing(path) as temporary:
            temporary.write_bytes(payload)

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "Model":
        """Read a model file.

        Raises:
            DataError: it is missing, not ours, or was trained on an encoder that is not the installed one.
        """
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise ModelMissingError(f"no model at {path}: `llbnad run` writes one, and so does `llbnad.fit(...).save`")
        try:
            with safe_open(path, framework="pt", device=device) as stored:
                content = json.loads((stored.metadata() or {}).get("llbnad", "{}"))
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  not a dict
        except SafetensorError as error:
            raise DataError(
                f"{path} is not a model file ({error}): expected the safetensors that training wrote"
            ) from None
        if content.get("format") != FORMAT:
            raise DataError(f"{path} is a safetensors file, but not {FORMAT!r}")
        try:
            encoder = EncoderConfig.model_validate(content["encoder"])
            settings = content["detector"]
            config: DetectorConfig = DETECTORS.get(settings["name"]).config_class.model_validate(settings)
        except ValueError as error:
            raise DataError(f"{path} was made by another release, or with a detector of your own: {error}") from None
        if recipe(encoder).fingerprint != content["encoder_fingerprint"]:
            raise DataError(
                f"{path} was trained on other weights of {encoder.name}: train again with the installed ones"
            )
        calibration = tensors.pop(CALIBRATION, None)
        detector = create_detector(config)
        detector.restore(tensors)
        threshold = None
        if calibration is not None:
            threshold = Threshold.restore(content["threshold"], calibration.cpu().numpy())
        return cls(encoder, config, detector, threshold)


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
