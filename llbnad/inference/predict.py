"""A model and its encoder at work: scores and decisions for new images."""

from collections.abc import Iterable, Sequence

import numpy as np

from llbnad.data.canvas import Frame
from llbnad.detectors.base import judge
from llbnad.encoders import create_encoder
from llbnad.encoders.canvases import canvas_of
from llbnad.errors import DataError
from llbnad.features.batch import fresh_batch
from llbnad.inference.exported import Exported, Session
from llbnad.inference.prediction import Prediction, Source
from llbnad.inference.scorer import Scorer
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold

OnCanvas = tuple[np.ndarray, Frame]  # an image on its canvas, and where it lies there


class Predictor(Scorer[OnCanvas]):
    """A model and its encoder, ready to score.

    Args:
        model: the trained model.
        device: torch's name of the device.
        batch_size: images read and scored at once.
    """

    def __init__(self, model: Model, device: str = "cpu", batch_size: int = 16) -> None:
        self.model, self.device = model, device
        self.canvas, self.encoder = canvas_of(model.encoder), create_encoder(model.encoder, device)
        self.batch_size = self.canvas.batch_size(batch_size)

    @property
    def read_at_once(self) -> int:
        """Images that are read ahead and scored together."""
        return self.batch_size

    def read_image(self, source: Source) -> OnCanvas:
        """Read one image onto its canvas."""
        pixels, size = self.canvas.load(source, self.model.window)
        frame = self.canvas.frame(size, self.model.region)
        frame.inside((1, 1))  # an error if nothing of the image is in the region
        return pixels, frame

    def score_images(self, images: Sequence[OnCanvas], threshold: Threshold | None) -> Iterable[Prediction]:
        """Return one prediction without regions per image, in their order."""
        pixels, frames = zip(*images, strict=True)
        names = tuple(map(str, range(len(images))))
        counts_whole = self.model.encoder.view == "squeeze" and self.model.region is None
        batch = fresh_batch(names, np.stack(pixels), self.encoder, self.device, () if counts_whole else frames)
        judged, image_scores = judge(self.model.detector, batch)
        scores = image_scores.cpu().numpy()
        maps = [frame.off_canvas(one) for frame, one in zip(frames, judged.cpu().numpy(), strict=True)]
        labels = [""] * len(scores) if threshold is None else [str(label) for label in threshold.labels(scores)]
        sizes = [frame.image for frame in frames]
        return map(Prediction, scores.tolist(), maps, labels, [""] * len(images), sizes)


def predictor_session(model: Model) -> Session:
    """Return a function that scores images (B, H, W, 3) uint8 in torch, as a reference for an exported graph."""
    predictor = Predictor(model)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = list(predictor.score_images([predictor.read_image(one) for one in images], None))
        scores, maps = ([getattr(one, name) for one in found] for name in ("score", "patch_map"))
        return np.array(scores, np.float32), np.stack(maps)

    return run


def threshold_of(model: Model | Exported, target_fpr: float | None) -> Threshold | None:
    """Return the model's threshold, or its threshold for another false-positive rate.

    Args:
        model: the trained model.
        target_fpr: false-positive rate in (0, 1); None keeps the model's own threshold, which may be None.

    Raises:
        ConfigError: the rate is not in (0, 1).
        DataError: a rate is given, but the model is not calibrated.
    """
    if target_fpr is None:
        return model.threshold
    if model.threshold is None:
        raise DataError(
            f"the model has no threshold, so its false-positive rate cannot be set to {target_fpr:g}: "
            "train it with calibration.folds of at least 2"
        )
    return model.threshold.at(target_fpr)
