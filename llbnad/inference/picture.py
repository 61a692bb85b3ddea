"""The picture of one scored image under its heat map: as large as the image, or small enough to be sent at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llbnad.config import Window
from llbnad.data.images import load_rgb
from llbnad.errors import DataError
from llbnad.evaluation.heat_scale import HeatScale, heat_scale, lay_heat
from llbnad.inference.prediction import Prediction
from llbnad.model.threshold import Threshold
from llbnad.regions.find import region_mask
from llbnad.regions.outline import lay_outline
from llbnad.utils.files import replacing

LONGEST_SIDE = 1600  # pixels


def scale_of(maps: Sequence[np.ndarray], threshold: Threshold | None) -> HeatScale:
    """Return the colour scale of a model's maps, anchored at its threshold; without one it follows from the maps."""
    return heat_scale(None if threshold is None else threshold.value, maps)


def heat_picture(
    source: Path | bytes,
    found: Prediction,
    threshold: Threshold | None,
    window: Window | None = None,
    longest: int = LONGEST_SIDE,
) -> Image.Image:
    """Return an image under its heat map, with its regions outlined; 8-bit RGB, the longer side of at most `longest`.

    Args:
        source: the image file, or its bytes.
        found: what the model found in it; an image without a map is returned as it is, one without regions has no
            outline.
        threshold: sets the scale of the colours, see `scale_of`.
        window: values of images above 8 bits that are black and white.
        longest: the longer side in pixels.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the image cannot be read.
    """
    picture = load_rgb(source, window)
    picture.thumbnail((longest, longest))
    if found.patch_map is not None:
        lay_heat(picture, found.patch_map, scale_of([found.patch_map], threshold))
    if found.regions and found.size is not None:
        mask = Image.fromarray(region_mask(found.regions, found.size))
        lay_outline(picture, np.asarray(mask.resize(picture.size, Image.Resampling.NEAREST)))
    return picture


def write_overlay(path: Path, window: Window | None, one: Prediction, scale: HeatScale, out: Path) -> None:
    """Write an image under its heat map as PNG, as large as it is, with its regions outlined.

    Raises:
        FileNotFoundError: the file does not exist.
        DataError: the image cannot be read, or has changed since it was scored.
    """
    picture = load_rgb(path, window)
    if one.patch_map is None or picture.size != one.size:
        raise DataError(f"{path} changed since it was scored: score it again")
    lay_heat(picture, one.patch_map, scale)
    if one.regions:
        lay_outline(picture, region_mask(one.regions, picture.size))
    with replacing(out) as temporary:
        picture.save(temporary, format="png")
