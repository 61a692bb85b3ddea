"""Thumbnails on contact sheets, and photos as small files."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.data.images import load_rgb
from llbnad.evaluation.figures import FOUND_COLOUR, NORMAL_COLOUR, Tile
from llbnad.evaluation.heat_scale import OF_EACH, HeatScale
from llbnad.inference.prediction import Prediction
from llbnad.model.threshold import Threshold

SIDE, QUALITY = 224, 80  # pixels of a thumbnail; of JPEG files
CALM = HeatScale(0.5, 1.0, 1.5, OF_EACH)  # of maps divided by their model's threshold


def tile(path: Path, one: Prediction, threshold: Threshold, name: str) -> Tile:
    """Return an image with its map divided by the threshold, so that maps of several models share a scale."""
    assert one.patch_map is not None and one.score is not None  # the cells can be read
    image = np.asarray(load_rgb(path).resize((SIDE, SIDE)))
    colour = NORMAL_COLOUR if one.label == "normal" else FOUND_COLOUR
    caption = f"{one.label} · {one.score / threshold.value:.3f} × threshold"
    return Tile(image, one.patch_map / threshold.value, caption, colour, name=name)


def evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` rows from the first to the last."""
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def as_jpeg(picture: Path, out: Path) -> None:
    """Write a PNG of photos as JPEG, which is a fraction of its size."""
    with Image.open(picture) as image:
        image.convert("RGB").save(out, quality=QUALITY, optimize=True)
