"""Harmless changes of normal images, and the share of images that a detector calls defects after each.

| change     | strengths                                 | of an image                                           |
|------------|-------------------------------------------|-------------------------------------------------------|
| `light`    | gain 0.5, 0.8, 0.9, 1.1, 1.25, 1.5        | its values times the gain, cut off at 255             |
| `blur`     | σ of 0.2, 0.5 and 1 % of the shorter side | a Gaussian                                            |
| `noise`    | 2, 5, 10, 20 grey values                  | normal noise with this standard deviation             |
| `jpeg`     | quality 90, 70, 40, 20                    | stored as JPEG and read again                         |
| `shift`    | 1, 2, 5 % of the width                    | moved to the right; the edge is repeated              |
| `rotation` | 1, 2, 5, 90°                              | about the centre; corners are the image, mirrored     |
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from llbnad.data.images import load_rgb
from llbnad.errors import DataError
from llbnad.inference.predict import Predictor
from llbnad.model.threshold import Threshold
from llbnad.sensitivity.rates import binomial_interval
from llbnad.utils.hashing import stable_number
from llbnad.utils.progress import track

Change = Callable[[np.ndarray, str, float], np.ndarray]  # pixels (H, W, 3) uint8, image id, strength -> pixels


def light(pixels: np.ndarray, image_id: str, gain: float) -> np.ndarray:
    """Multiply all values by `gain`."""
    return (pixels * np.float32(gain)).round().clip(0, 255).astype(np.uint8)


def blur(pixels: np.ndarray, image_id: str, share: float) -> np.ndarray:
    """Blur with a Gaussian whose σ is `share` of the shorter side."""
    sigma = share * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def noise(pixels: np.ndarray, image_id: str, deviation: float) -> np.ndarray:
    """Add noise with a standard deviation in grey values; it follows from the image id."""
    random = np.random.default_rng(stable_number(image_id, 0, "robustness"))
    added = random.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return (pixels + added).round().clip(0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, image_id: str, quality: float) -> np.ndarray:
    """Store as JPEG of this quality and read it again."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="jpeg", quality=int(quality))
    return np.asarray(Image.open(stream))


def shift(pixels: np.ndarray, image_id: str, share: float) -> np.ndarray:
    """Move to the right by `share` of the width; the edge is repeated."""
    by = round(share * pixels.shape[1])
    return np.pad(pixels, ((0, 0), (by, 0), (0, 0)), mode="edge")[:, : pixels.shape[1]]


def rotation(pixels: np.ndarray, image_id: str, degrees: float) -> np.ndarray:
    """Turn about the centre; corners are filled from the mirrored image."""
    from scipy import ndimage

    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(pixels, round(degrees / 90)))
    return np.asarray(ndimage.rotate(pixels, degrees, reshape=False, order=1, mode="mirror"))


CHANGES: Mapping[str, tuple[Change, tuple[float, ...]]] = {
    "light": (light, (0.5, 0.8, 0.9, 1.1, 1.25, 1.5)),
    "blur": (blur, (0.002, 0.005, 0.01)),
    "noise": (noise, (2, 5, 10, 20)),
    "jpeg": (jpeg, (90, 70, 40, 20)),
    "shift": (shift, (0.01, 0.02, 0.05)),
    "rotation": (rotation, (1, 2, 5, 90)),
}


def robustness(predictor: Predictor, images: Mapping[str, Path], threshold: Threshold) -> pd.DataFrame:
    """Return the share of normal images that are called defects, as they are and after each change.

    Args:
        predictor: the model.
        images: files of normal images that the model has not learnt, by id.
        threshold: scores above its value are called defects.

    Returns:
        change (`none` for the images as they are), strength, images, called_defects, false_positives, low, high: the
        95 % interval.

    Raises:
        DataError: an image cannot be read or scored.
    """
    wanted: list[tuple[str, float]] = [("none", 0.0)]
    wanted += [(name, strength) for name, (_, strengths) in CHANGES.items() for strength in strengths]
    called = dict.fromkeys(wanted, 0)
    for image_id, path in track(images.items(), "robustness", len(images)):
        pixels = np.asarray(load_rgb(path, predictor.model.window))
        for one in wanted:  # one at a time, since images may be large
            changed = pixels if one[0] == "none" else CHANGES[one[0]][0](pixels, image_id, one[1])
            (found,) = predictor.predict([changed])
            if found.score is None:
                raise DataError(f"{path} cannot be scored after {one[0]} {one[1]:g}: {found.error}")
            called[one] += int(found.score > threshold.value)
    table = pd.DataFrame(wanted, columns=["change", "strength"]).assign(images=len(images))
    table["called_defects"] = [called[one] for one in wanted]
    table["false_positives"] = table["called_defects"] / len(images)
    table["low"], table["high"] = binomial_interval(table["called_defects"].to_numpy(), table["images"].to_numpy())
    return table
