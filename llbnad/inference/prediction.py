"""The judgement of one image, whatever computed it: a model file or an exported graph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

Source = Path | bytes | np.ndarray  # an image file, the bytes of one, or pixels (H, W, 3) uint8


@dataclass(frozen=True)
class Prediction:
    """The model's judgement of one image. Score and map are None if the image could not be read."""

    score: float | None
    patch_map: np.ndarray | None  # (h, w) float32
    label: str = ""  # normal, unsure or defect; empty without a threshold
    error: str = ""  # why the image could not be read
