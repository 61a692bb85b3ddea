"""Scores of images with synthetic defects, by any model, through the same door as all other new images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.data.images import load_rgb
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.errors import DataError
from llbnad.inference.predict import Predictor
from llbnad.sensitivity.defects import KINDS, draw
from llbnad.sensitivity.places import Places
from llbnad.sensitivity.rates import CLEAN
from llbnad.utils.progress import track

PARTS = (64, 32, 16, 8, 4)  # the usual sizes: parts of the shorter side of the images
MOST_BYTES = 256 << 20  # of drawings that are held at once

Drawing = tuple[str, int, float]  # kind, size in pixels, contrast


def usual_sizes(sides: Sequence[int]) -> tuple[int, ...]:
    """Return 1/64 … 1/4 of the middle one of `sides`, the shorter sides of the images; in pixels, at least 1."""
    middle = sorted(sides)[len(sides) // 2]
    return tuple(sorted({max(1, round(middle / part)) for part in PARTS}))


def drawings(sizes: Sequence[int], contrasts: Sequence[float], kinds: Sequence[str] = KINDS) -> list[Drawing]:
    """Return every kind in every size and contrast."""
    return [(kind, size, contrast) for kind in kinds for contrast in contrasts for size in sizes]


def score_drawings(
    predictor: Predictor,
    images: Mapping[str, Path],
    wanted: Sequence[Drawing],
    seed: int = 0,
    region: RegionOfInterest | None = None,
) -> pd.DataFrame:
    """Score each image as it is, and with each of the drawings.

    Args:
        predictor: the model.
        images: files of normal images, by id.
        wanted: the drawings.
        seed: gives other places.
        region: the part of an image that defects are drawn in; None: the whole image.

    Returns:
        one row per image and drawing: image_id, kind, size, contrast, score. The image itself has the kind `CLEAN`,
        size 0 and contrast 0.

    Raises:
        DataError: an image cannot be read or scored, or the region has no room for a defect.
    """
    rows = []
    for image_id, path in track(images.items(), "synthetic defects", len(images)):
        pixels = np.asarray(load_rgb(path, predictor.model.window))
        places = places_in(pixels, region)
        for part in _parts(pixels.nbytes, [(CLEAN, 0, 0.0), *wanted]):
            drawn = [pixels if one[0] == CLEAN else draw(pixels, image_id, *one, seed, places).image for one in part]
            for one, found in zip(part, predictor.predict(drawn), strict=True):
                if found.score is None:
                    raise DataError(f"{path} with a {one[0]} of {one[1]} px cannot be scored: {found.error}")
                rows.append((image_id, *one, found.score))
    return pd.DataFrame(rows, columns=["image_id", "kind", "size", "contrast", "score"])


def places_in(pixels: np.ndarray, region: RegionOfInterest | None) -> Places | None:
    """Return where defects may lie in an image (H, W, 3); None for anywhere."""
    return None if region is None else Places(region, (pixels.shape[1], pixels.shape[0]))


def _parts(each: int, wanted: Sequence[Drawing]) -> Iterator[Sequence[Drawing]]:
    """Yield the drawings in parts that fit into memory; `each` is the size of one in bytes."""
    count = max(1, MOST_BYTES // each)
    yield from (wanted[start : start + count] for start in range(0, len(wanted), count))
