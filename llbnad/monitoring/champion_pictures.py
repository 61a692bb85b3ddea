"""Pictures of a new detector beside the champion: scores of the same images, and the images they differ on most."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.data.images import load_rgb
from llbnad.evaluation.figures import (
    ANOMALOUS_COLOUR,
    CUT_COLOUR,
    NORMAL_COLOUR,
    UNSURE_COLOUR,
    Tile,
    contact_sheet,
    figure,
    plain_numbers,
)
from llbnad.evaluation.heat_scale import OF_EACH, heat_scale
from llbnad.inference.predict import Predictor
from llbnad.inference.prediction import Prediction
from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL, Threshold
from llbnad.monitoring.probe import Probe, values

SHOWN = 6  # images they differ on most; each has two tiles
SIDE = 320  # pixels of a tile's longer side
COLUMNS = ("image", "champion", "champion says", "challenger", "challenger says")
SHOWN_ALARMS = 12  # newly learnt images that the champion calls defects
LABEL_COLOURS = {DEFECT_LABEL: ANOMALOUS_COLOUR, UNSURE_LABEL: UNSURE_COLOUR}

Limits = tuple[float | None, float | None]  # thresholds of champion and challenger; None without one


def draw_scores(champion: Probe, challenger: Probe, limits: Limits, path: Path) -> None:
    """Draw each image as a point, as PNG: the champion's score to the right, the challenger's upwards.

    Args:
        champion: scores of the champion.
        challenger: scores of the challenger, of the same images.
        limits: their thresholds, drawn as lines.
        path: PNG file.
    """
    groups = {
        "kept by the champion": (sorted(champion.kept), NORMAL_COLOUR, "o"),
        "rejected by the champion": (sorted(champion.rejected), ANOMALOUS_COLOUR, "o"),
        "normal test images": (_labelled(champion, False), NORMAL_COLOUR, "x"),
        "anomalous test images": (_labelled(champion, True), ANOMALOUS_COLOUR, "x"),
    }
    before, now = _scores(champion), _scores(challenger)
    with figure(path, (6.4, 5.6)) as (axes,):
        for name, (ids, colour, marker) in groups.items():
            if ids:
                style: dict[str, Any] = {"s": 18, "color": colour, "marker": marker, "linewidths": 0.9, "alpha": 0.7}
                axes.scatter(values(before, ids), values(now, ids), label=f"{name} ({len(ids)})", **style)
        for limit, line in zip(limits, (axes.axvline, axes.axhline), strict=True):
            if limit is not None:
                line(limit, color=CUT_COLOUR, linestyle="--", linewidth=1)
        finite = [score for score in [*before.values(), *now.values()] if np.isfinite(score)]
        logarithmic = bool(finite) and min(finite) > 0
        unit = " (logarithmic)" if logarithmic else ""
        if logarithmic:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                plain_numbers(axis, min(finite), max(finite))
        axes.set(title="The same images, scored by both; dashed: their thresholds",
                 xlabel=f"score of the champion{unit}", ylabel=f"score of the challenger{unit}")  # fmt: skip
        axes.legend(frameon=False, fontsize=8)


def most_different(
    champion: Probe, challenger: Probe, thresholds: tuple[Threshold | None, Threshold | None], count: int = SHOWN
) -> list[str]:
    """Return the ids of the images on which both differ most: another label first, then another rank.

    Args:
        champion: scores of the champion.
        challenger: scores of the challenger, of the same images.
        thresholds: their thresholds; without one of them, only ranks count.
        count: number of images.
    """
    from scipy.stats import rankdata

    before, now = _scores(champion), _scores(challenger)
    ids = sorted(one for one in before.keys() & now.keys() if np.isfinite(before[one]) and np.isfinite(now[one]))
    old, new = values(before, ids), values(now, ids)
    same = np.ones(len(ids), bool)
    if thresholds[0] is not None and thresholds[1] is not None:
        same = thresholds[0].labels(old) == thresholds[1].labels(new)
    moved = np.abs(rankdata(old) - rankdata(new))
    return [ids[place] for place in np.lexsort((-moved, same))[:count]]


def draw_differences(
    images: Mapping[str, Path], champion: Predictor, challenger: Predictor, path: Path
) -> pd.DataFrame:
    """Draw images under the heat maps of both, as PNG. Maps are in units of the thresholds, to be comparable.

    Args:
        images: files by the names that people know; an image that cannot be read is left out.
        champion: the champion.
        challenger: the challenger.
        path: PNG file.

    Returns:
        one row per image: `COLUMNS`.
    """
    files = list(images.values())
    both = [list(one.predict(files, one.model.threshold)) for one in (champion, challenger)]
    tiles, rows = [], []
    for name, file, old, new in zip(images, files, *both, strict=True):
        if old.patch_map is None or new.patch_map is None:
            continue
        picture = _thumbnail(file, challenger)
        for who, predictor, found in (("champion", champion, old), ("challenger", challenger, new)):
            tiles.append(_tile(picture, name, who, predictor, found))
        rows.append((name, old.score, old.label, new.score, new.label))
    anchored = all(_limit(one) is not None for one in (champion, challenger))
    scale = heat_scale(1.0 if anchored else None, [tile.heat for tile in tiles], OF_EACH)
    contact_sheet(tiles, path, "The images on which champion and challenger differ most, side by side", scale)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def draw_alarms(images: Mapping[str, Path], champion: Predictor, path: Path) -> None:
    """Draw newly learnt images that the champion calls defects under its heat maps, as PNG.

    Args:
        images: files by the names that people know; an image that cannot be read is left out.
        champion: the champion.
        path: PNG file.
    """
    found = list(champion.predict([*images.values()], champion.model.threshold))
    tiles = [
        _tile(_thumbnail(file, champion), name, "champion", champion, one)
        for (name, file), one in zip(images.items(), found, strict=True)
        if one.patch_map is not None
    ]
    scale = heat_scale(1.0 if _limit(champion) is not None else None, [tile.heat for tile in tiles], OF_EACH)
    contact_sheet(tiles, path, "Newly learnt as normal, defects to the champion", scale)


def _thumbnail(file: Path, predictor: Predictor) -> np.ndarray:
    picture = load_rgb(file, predictor.model.window)
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)


def _tile(image: np.ndarray, name: str, who: str, predictor: Predictor, found: Prediction) -> Tile:
    assert found.patch_map is not None and found.score is not None
    limit = _limit(predictor)
    heat = found.patch_map if limit is None else found.patch_map / limit
    colour = LABEL_COLOURS.get(found.label or "", NORMAL_COLOUR)
    return Tile(image, heat, f"{who}: {found.score:.3g} {found.label or ''}", colour, name=name)


def _limit(predictor: Predictor) -> float | None:
    limit = predictor.model.threshold
    return None if limit is None or limit.value <= 0 else limit.value


def _scores(probe: Probe) -> dict[str, float]:
    return {**probe.kept, **probe.rejected, **probe.labelled}


def _labelled(probe: Probe, anomalous: bool) -> list[str]:
    return sorted(one for one in probe.labelled if probe.anomalous[one] is anomalous)
