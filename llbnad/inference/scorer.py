"""The loop over images that a model file and an exported graph share: read ahead, score, find regions."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from llbnad.errors import DataError
from llbnad.inference.prediction import Prediction, Source, with_regions
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import Threshold
from llbnad.utils.prefetch import prefetch

Loaded = TypeVar("Loaded")  # an image as the detector takes it


class Scorer(ABC, Generic[Loaded]):
    """A detector that scores images. An unreadable image does not stop the others."""

    @property
    @abstractmethod
    def read_at_once(self) -> int:
        """Images that are read ahead and scored together."""

    @abstractmethod
    def read_image(self, source: Source) -> Loaded:
        """Read one image.

        Raises:
            DataError: the image cannot be read or scored.
        """

    @abstractmethod
    def score_images(self, images: Sequence[Loaded], threshold: Threshold | None) -> Iterable[Prediction]:
        """Return one prediction without regions per image, in their order; there is at least one image."""

    def predict(
        self,
        sources: Sequence[Source],
        threshold: Threshold | None = None,
        pixels: PixelThreshold | None = None,
        min_area: int | None = None,
    ) -> Iterator[Prediction]:
        """Yield one prediction per source, in their order.

        Args:
            sources: the images.
            threshold: decides on labels (see `llbnad.inference.predict.threshold_of`).
            pixels: decides on regions (`llbnad.inference.region_files.pixel_threshold_of`); None: no regions.
            min_area: fewest pixels of a region; None: the area that `pixels` was calibrated for.
        """
        count = self.read_at_once
        batches = [sources[start : start + count] for start in range(0, len(sources), count)]
        for loaded in prefetch(self._read, batches):
            read = [one for one in loaded if not isinstance(one, DataError)]
            scored = iter(self.score_images(read, threshold) if read else ())
            for one in loaded:
                if isinstance(one, DataError):
                    yield Prediction(None, None, error=str(one))
                else:
                    yield with_regions(next(scored), pixels, min_area)

    def _read(self, source: Source) -> Loaded | DataError:
        try:
            return self.read_image(source)
        except DataError as error:
            return error
