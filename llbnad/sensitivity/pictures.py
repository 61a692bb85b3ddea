"""Pictures of sensitivity: curves of detection over size, and a sheet of the drawings themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.data.images import load_rgb
from llbnad.data.names import shown_name
from llbnad.errors import DataError
from llbnad.evaluation.figures import (
    FALSE_ALARM_COLOUR,
    FOUND_COLOUR,
    MISSED_COLOUR,
    NORMAL_COLOUR,
    Tile,
    contact_sheet,
    figure,
)
from llbnad.inference.picture import scale_of
from llbnad.inference.predict import Predictor
from llbnad.model.threshold import Threshold
from llbnad.sensitivity.defects import Pasted, dimensions, draw
from llbnad.sensitivity.measure import Drawing, places_in
from llbnad.sensitivity.rates import SHARES

COLOURS = {"scratch": "#D55E00", "blot": "#0072B2", "missing": "#009E73", "noise": "#E69F00", "swap": "#CC79A7"}
THUMBNAIL = 224  # pixels


def sensitivity_curves(rates: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the detection rate over size as PNG: one pair of axes per contrast, one line per kind, 95 % intervals.

    Args:
        rates: result of `llbnad.sensitivity.rates.detection_rates`.
        path: PNG file.
        title: title of the picture.
    """
    contrasts = sorted(rates["contrast"].unique())
    sizes = sorted(rates["size"].unique())
    with figure(path, (6.5 * max(1, len(contrasts)), 4.4), columns=max(1, len(contrasts))) as all_axes:
        for axes, contrast in zip(all_axes, contrasts, strict=False):
            chosen = rates[rates["contrast"] == contrast]
            for place, kind in enumerate(chosen["kind"].unique()):
                one = chosen[chosen["kind"] == kind]
                beside = one["size"] * 1.03 ** (place - 2)  # so that no interval hides another
                ends = [one["rate"] - one["low"], one["high"] - one["rate"]]
                style: dict[str, Any] = {"color": COLOURS[kind], "label": kind, "capsize": 2, "elinewidth": 0.8}
                axes.errorbar(beside, one["rate"], np.clip(ends, 0, None), marker="o", **style)
            for share in SHARES:
                axes.axhline(share, color="#cccccc", linewidth=1, linestyle=":")
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.set(
                xlabel="size in pixels of the image, logarithmic", ylabel="share of images found", ylim=(-0.02, 1.02)
            )
            axes.set_title(f"{title}\ncontrast {contrast:g}", fontsize=9)
            axes.legend(frameon=False, loc="lower right")


def defect_sheet(
    predictor: Predictor,
    image_id: str,
    path: Path,
    wanted: Sequence[Drawing],
    threshold: Threshold,
    out: Path,
    seed: int = 0,
) -> None:
    """Draw a contact sheet as PNG: one image as it is and with each drawing, its outline, and what the model saw.

    Args:
        predictor: the model.
        image_id: id of the image.
        path: file of the image.
        wanted: the drawings.
        threshold: decides what is found.
        out: PNG file.
        seed: as for the scores.
    """
    pixels, tiles = np.asarray(load_rgb(path, predictor.model.window)), []
    places = places_in(pixels, predictor.model.region)
    clean = _tile(predictor, Pasted(pixels, np.zeros(pixels.shape[:2], bool)), "as it is", threshold)
    for number, (kind, size, contrast) in enumerate(wanted):
        if not number or wanted[number - 1][0] != kind:
            tiles.append(clean)
        name = f"{kind} {' × '.join(map(str, dimensions(kind, size)))} px"
        pasted = draw(pixels, image_id, kind, size, contrast, seed, places)
        tiles.append(_tile(predictor, pasted, name, threshold))
    scale = scale_of([tile.heat for tile in tiles], threshold)
    contrasts = " and ".join(f"{contrast:g}" for contrast in dict.fromkeys(one[2] for one in wanted))
    title = f"Synthetic defects of contrast {contrasts} on {shown_name(path.name)}, outlined, and what the model saw"
    contact_sheet(tiles, out, title, scale)


def _tile(predictor: Predictor, pasted: Pasted, name: str, threshold: Threshold) -> Tile:
    (found,) = predictor.predict([pasted.image])
    if found.score is None or found.patch_map is None:
        raise DataError(f"an image with the synthetic defect {name} cannot be scored: {found.error}")
    above = found.score > threshold.value
    if pasted.mask.any():
        said, colour = ("found", FOUND_COLOUR) if above else ("missed", MISSED_COLOUR)
    else:
        said, colour = ("false alarm", FALSE_ALARM_COLOUR) if above else ("passed", NORMAL_COLOUR)
    caption = f"{said} · {found.score:.4g}"
    return Tile(_small(pasted.image), found.patch_map, caption, colour, _small_mask(pasted.mask), name)


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL)))


def _small_mask(mask: np.ndarray) -> np.ndarray:
    """Return a mask (THUMBNAIL, THUMBNAIL) with every pixel that holds some of it, so that no small defect vanishes."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(share) > 0
