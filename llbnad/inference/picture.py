"""The picture of one scored image: the image under its heat map, small enough to be written and sent at once."""

from pathlib import Path

import numpy as np
from PIL import Image

from llbnad.config import Window
from llbnad.data.images import load_rgb
from llbnad.evaluation.heat_scale import lay_heat
from llbnad.inference.predict import Prediction, scale_of
from llbnad.model.threshold import Threshold
from llbnad.regions.find import region_mask
from llbnad.regions.outline import lay_outline

LONGEST_SIDE = 1600  # pixels


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
