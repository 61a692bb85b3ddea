"""The judgement of one image, whatever computed it: a model file or an exported graph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.regions.find import Region

Source = Path | bytes | np.ndarray  # an image file, the bytes of one, or pixels (H, W, 3) uint8


@dataclass(frozen=True)
class Prediction:
    """The model's judgement of one image. Score, map and size are None if the image could not be read."""

    score: float | None
    patch_map: np.ndarray | None  # (h, w) float32
    label: str = ""  # normal, unsure or defect; empty without a threshold
    error: str = ""  # why the image could not be read
    size: tuple[int, int] | None = None  # width and height of the image as it is seen, in pixels
    regions: Sequence[Region] | None = None  # highest peak first; None without a pixel threshold


def with_regions(one: Prediction, pixels: PixelThreshold | None, min_area: int | None = None) -> Prediction:
    """Return a prediction with its regions; as it is without a pixel threshold or if the image could not be read.

    Args:
        one: the prediction.
        pixels: decides on regions (`llbnad.inference.region_files.pixel_threshold_of`).
        min_area: fewest pixels of a region; None: the area that `pixels` was calibrated for.
    """
    if pixels is None or one.patch_map is None or one.size is None:
        return one
    return replace(one, regions=pixels.regions(one.patch_map, one.size, min_area))


def printable(name: Path | str) -> str:
    """Return a file name, or a message with a file name, as text that can be written.

    Bytes that are not UTF-8 appear as \\xff.
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
