"""The judgement of one image, and its name as text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llbnad.regions.find import Region


@dataclass(frozen=True)
class Prediction:
    """The model's judgement of one image. Score, map and size are None if the image could not be read."""

    score: float | None
    patch_map: np.ndarray | None  # (h, w) float32
    label: str = ""  # normal, unsure or defect; empty without a threshold
    error: str = ""  # why the image could not be read
    size: tuple[int, int] | None = None  # width and height of the image as it is seen, in pixels
    regions: Sequence[Region] | None = None  # highest peak first; None without a pixel threshold


def printable(name: Path | str) -> str:
    """Return a file name, or a message with a file name, as text that can be written.

    Bytes that are not UTF-8 appear as \\xff.
    """
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
