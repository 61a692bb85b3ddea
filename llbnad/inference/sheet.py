"""The contact sheet of scored images, the highest scores first."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.config import Window
from llbnad.data.images import load_rgb
from llbnad.errors import DataError
from llbnad.evaluation.figures import ANOMALOUS_COLOUR, NORMAL_COLOUR, UNSURE_COLOUR, Tile, contact_sheet
from llbnad.evaluation.heat_scale import HeatScale
from llbnad.inference.prediction import Prediction
from llbnad.model.threshold import DEFECT_LABEL, NORMAL_LABEL, UNSURE_LABEL
from llbnad.regions.find import region_mask

SHEET_IMAGES = 24
THUMBNAIL = 224  # side in pixels


def write_sheet(
    table: pd.DataFrame,
    window: Window | None,
    results: Mapping[Path, Prediction],
    scale: HeatScale,
    title: str,
    out: Path,
) -> None:
    """Draw the sheet as PNG. A file that has gone since it was scored has no tile.

    Args:
        table: one row per image: path, score and label, and its file as `source`.
        window: values of images above 8 bits that are black and white.
        results: predictions by file.
        scale: colour scale of the maps.
        title: title of the sheet.
        out: PNG file.
    """
    colours = {DEFECT_LABEL: ANOMALOUS_COLOUR, UNSURE_LABEL: UNSURE_COLOUR, NORMAL_LABEL: NORMAL_COLOUR}
    tiles = []
    scored = table.dropna(subset="score").sort_values(["score", "path"], ascending=[False, True])
    for row in scored.head(SHEET_IMAGES).to_dict("records"):
        path, heat = row["source"], results[row["source"]].patch_map
        if heat is None:
            continue
        try:
            image = np.asarray(load_rgb(path, window).resize((THUMBNAIL, THUMBNAIL)))
        except (DataError, FileNotFoundError):  # the file has gone since it was scored
            continue
        label = f"{row['label']} · " if row["label"] else ""
        colour = colours.get(row["label"], "black")
        caption = f"{label}{row['score']:.4g}"
        tiles.append(Tile(image, heat, caption, colour, _outlined(results[path]), row["path"]))
    contact_sheet(tiles, out, title, scale)


def _outlined(one: Prediction) -> np.ndarray | None:
    """Return the pixels of an image's regions at the size of a thumbnail, or None if it has none."""
    if not one.regions or one.size is None:
        return None
    mask = Image.fromarray(region_mask(one.regions, one.size))
    return np.asarray(mask.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST))
