"""The images that the inspection page has scored, kept so that they can be judged again at another rate.

An image is judged by the thresholds of the model that scored it, whichever model scores today. What is kept of an image
is its score and its map. The oldest images are forgotten when all maps together need more than `MOST_BYTES`.
"""

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llbnad.inference.prediction import Prediction, with_regions
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import Threshold
from llbnad.regions.find import Region
from orchestration.inspection.champion import ChampionScorer

MOST_BYTES = 256 << 20  # of all maps together
LEAST_BYTES = 1 << 10  # that an image counts for, however small its map is


@dataclass(frozen=True)
class ScoredImage:
    """One scored image, with the thresholds of the model that scored it."""

    found: Prediction  # without regions
    threshold: Threshold | None
    pixels: PixelThreshold | None
    min_area: int | None

    @property
    def bytes(self) -> int:
        """Bytes that the image counts for."""
        return max(LEAST_BYTES, 0 if self.found.patch_map is None else self.found.patch_map.nbytes)


class ScoredImages:
    """Scored images by a name that nobody can guess. Threads may share it.

    Args:
        most_bytes: of all maps together.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes, self._bytes = most_bytes, 0
        self._images: dict[str, ScoredImage] = {}
        self._lock = threading.Lock()

    def add(self, scorer: ChampionScorer, found: Prediction) -> str:
        """Keep an image that `scorer` has scored, and return its name."""
        name = secrets.token_hex(8)
        image = ScoredImage(found, scorer.threshold, scorer.pixels, scorer.min_area)
        with self._lock:
            self._images[name] = image
            self._bytes += image.bytes
            while self._bytes > self.most_bytes and len(self._images) > 1:
                self._bytes -= self._images.pop(next(iter(self._images))).bytes
        return name

    def labels(self, names: Sequence[str], target_fpr: float) -> list[str | None]:
        """Return the label of each image at another rate of false positives.

        It is None for an image that is not known any more, and empty for a model without a threshold.

        Raises:
            ConfigError: the rate is not in (0, 1).
        """
        with self._lock:
            images = [self._images.get(name) for name in names]
        # moving one takes a while, and most images share a model
        thresholds = {id(image.threshold): image.threshold for image in images if image and image.threshold}
        moved = {key: threshold.at(target_fpr) for key, threshold in thresholds.items()}
        return [None if image is None else _label(image, moved.get(id(image.threshold))) for image in images]

    def regions(self, name: str, target_fpr: float) -> Sequence[Region] | None:
        """Return the regions of an image at another rate; None without a pixel threshold, or for an unknown image.

        Raises:
            ConfigError: the rate is not in (0, 1).
        """
        with self._lock:
            image = self._images.get(name)
        if image is None or image.pixels is None:
            return None
        return with_regions(image.found, image.pixels.at(target_fpr), image.min_area).regions


def _label(image: ScoredImage, threshold: Threshold | None) -> str:
    if threshold is None or image.found.score is None:
        return ""
    return str(threshold.labels(np.array([image.found.score], np.float32))[0])
