"""The pictures of a run: scores with the cut, suspect images, curves and test images."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.config import METHOD, Aggregation
from llbnad.data.canvas import off_canvas
from llbnad.data.images import load_rgb
from llbnad.data.manifest import NORMAL, has_labels, is_anomalous, window_of
from llbnad.data.masks import marked
from llbnad.evaluation.figures import (
    ANOMALOUS_COLOUR,
    FALSE_ALARM_COLOUR,
    FOUND_COLOUR,
    MISSED_COLOUR,
    NORMAL_COLOUR,
    UNKNOWN_COLOUR,
    UNSURE_COLOUR,
    Tile,
    contact_sheet,
    curves,
)
from llbnad.evaluation.heat_scale import heat_scale
from llbnad.evaluation.histogram import Line, score_histogram
from llbnad.evaluation.results import Evaluation
from llbnad.features.store import FeatureStore
from llbnad.model.model import Model
from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL, Threshold
from llbnad.purification.heat import mean_heat
from llbnad.purification.limit import suspicious_from
from llbnad.purification.purify import LEFT_OUT, Purified

THUMBNAIL = 224  # pixels


def purification_plots(
    scored: pd.DataFrame,
    purified: Purified,
    heat: Mapping[str, np.ndarray],
    image_root: Path,
    folder: Path,
    aggregation: Aggregation = "oof_mean",
) -> list[Path]:
    """Draw the histogram of the consensus scores and the contact sheet of suspects, most suspicious image first.

    Args:
        scored: manifest of the training images with a column `score`.
        purified: the kept and rejected images.
        heat: patch maps of the suspects by image id.
        image_root: folder that manifest paths are relative to.
        folder: folder for the PNG files.
        aggregation: how the scores were made.

    Returns:
        the files.
    """
    anomalous = is_anomalous(scored).astype(bool).to_numpy() if has_labels(scored) else None
    histogram, sheet = folder / "scores.png", folder / "suspects.png"
    scores = scored["score"]
    limit = suspicious_from(scores, purified, aggregation)
    title = f"Consensus scores: {len(purified.kept)} of {len(scored)} images kept"
    lines = [("cut: largest score that the policy keeps" if limit.rejects else limit.meaning, limit.value)]
    if limit.share_ends is not None:
        lines.append(("end of the fixed share that is kept", limit.share_ends))
    score_histogram(scores.to_numpy(), anomalous, lines, histogram, title)

    rejected = set(purified.rejected)
    away = "rejected" if purified.by_evidence else "left out"
    suspects = scored[scored["image_id"].isin(heat)].sort_values(["score", "image_id"], ascending=[False, True])
    tiles = []
    for row in suspects.to_dict("records"):
        verdict = away if row["image_id"] in rejected else "kept"
        known = "" if pd.isna(row["anomaly_class"]) else f" · label {row['anomaly_class']}"
        caption = f"{verdict} · {row['score']:.4g}{known}"
        colour = {"rejected": ANOMALOUS_COLOUR, "kept": NORMAL_COLOUR}.get(verdict, UNKNOWN_COLOUR)
        tiles.append(_tile(row, heat[row["image_id"]], caption, colour, image_root))
    nothing = f"; {len(rejected)} are {away}" if rejected else f"; none is {away}"
    if rejected and not purified.by_evidence:
        nothing = f"; {len(rejected)} are {LEFT_OUT}"
    scale = heat_scale(limit.on_maps, [tile.heat for tile in tiles], limit.meaning)
    contact_sheet(tiles, sheet, f"The {len(tiles)} most suspicious of {len(scored)} training images{nothing}", scale)
    return [histogram, sheet]


def evaluation_plots(
    result: Evaluation,
    images: pd.DataFrame,
    models: Mapping[str, Model],
    features: FeatureStore,
    image_root: Path,
    count: int,
    folder: Path,
) -> list[Path]:
    """Draw ROC and precision-recall curves, and a contact sheet of the best and worst cases.

    If no image is set aside for testing, labels are missing, or all images are of one kind, draw the histogram of the
    scores and the highest-scored images.

    Args:
        result: result of `llbnad.evaluation.evaluate.evaluate`.
        images: manifest rows of the evaluated images.
        models: models by method; the final detector makes the heat maps.
        features: features of the images.
        image_root: folder that manifest paths are relative to.
        count: images on the sheet.
        folder: folder for the PNG files.

    Returns:
        the files.
    """
    curves_file, scores_file, sheet = folder / "curves.png", folder / "scores.png", folder / "cases.png"
    scored = images.assign(score=result.scores[METHOD].of(images["image_id"].tolist()))
    scored = scored.sort_values(["score", "image_id"], ascending=[False, True])
    anomalous = is_anomalous(scored)
    tested = bool((images["split"] == "test").all())
    if tested and has_labels(images) and anomalous.any() and not anomalous.all():
        plots, other = [curves_file, sheet], scores_file
        curves(
            {name: _by_label(scores.of(images["image_id"].tolist()), images) for name, scores in result.scores.items()},
            curves_file,
        )
        third = max(1, count // 3)
        defects = scored[anomalous]
        finds = min(third, math.ceil(len(defects) / 2))  # no defect is both among the surest and among the lowest
        chosen = [defects.head(finds), defects.iloc[finds:].tail(third), scored[~anomalous].head(third)]
        title = "Test images: surest finds, lowest-scored defects, highest-scored normals"
    else:
        plots, other = [scores_file, sheet], curves_file
        lines, unsure = _decision(result.threshold)
        title = "Scores of the final detector"
        score_histogram(scored["score"].to_numpy(), None, lines, scores_file, title, unsure)
        chosen = [scored.head(count)]
        title = "Most suspicious images of the final detector"
    other.unlink(missing_ok=True)  # an earlier run may have left it
    if result.threshold is not None:
        title += f"; {result.threshold.caption()}"
    rows = pd.concat(chosen)
    rows["label"] = "" if result.threshold is None else result.threshold.labels(rows["score"].to_numpy())
    heat = mean_heat([models[METHOD]], features, rows["image_id"].unique().tolist())
    heat = off_canvas(heat, features.frames)
    tiles = []
    for row in rows.to_dict("records"):
        known = "" if pd.isna(row["anomaly_class"]) else f" · label {row['anomaly_class']}"
        outcome, colour = _outcome(row["label"], row["anomaly_class"])
        caption = f"{outcome}{row['score']:.4g}{known}"
        tiles.append(_tile(row, heat[row["image_id"]], caption, colour, image_root))
    limit = None if result.threshold is None else result.threshold.value
    contact_sheet(tiles, sheet, title, heat_scale(limit, [tile.heat for tile in tiles]))
    return plots


def _decision(threshold: Threshold | None) -> tuple[list[Line], tuple[float, float] | None]:
    """Return the line of a threshold and its band of unsure scores, for a histogram."""
    if threshold is None:
        return [], None
    band = (threshold.unsure_low, threshold.unsure_high) if threshold.unsure else None
    return [("threshold", threshold.value)], band


def _outcome(label: str, anomaly_class: Any) -> tuple[str, str]:
    """Return the outcome of a decision as a text, and its colour.

    Args:
        label: the decision, from `Threshold.labels`; empty without a threshold.
        anomaly_class: label of the image; missing if nobody labelled it.
    """
    called = label == DEFECT_LABEL
    if pd.isna(anomaly_class):
        text, colour = label, (ANOMALOUS_COLOUR if called else NORMAL_COLOUR) if label else UNKNOWN_COLOUR
    elif anomaly_class == NORMAL:
        text, colour = ("false alarm", FALSE_ALARM_COLOUR) if called else ("passed", NORMAL_COLOUR)
    else:
        text, colour = ("found", FOUND_COLOUR) if called else ("missed", MISSED_COLOUR)
    if label == UNSURE_LABEL:
        text, colour = label, UNSURE_COLOUR
    return f"{text} · " if label else "", colour


def _by_label(values: np.ndarray, images: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    anomalous = is_anomalous(images).astype(bool).to_numpy()
    return values[~anomalous], values[anomalous]


def _tile(row: Mapping[Any, Any], heat: np.ndarray, caption: str, colour: str, image_root: Path) -> Tile:
    image = np.asarray(load_rgb(image_root / row["path"], window_of(row)).resize((THUMBNAIL, THUMBNAIL)))
    mask = None if pd.isna(row["mask_path"]) else marked(row, image_root, (THUMBNAIL, THUMBNAIL))
    return Tile(image, heat.astype(np.float32), caption, colour, mask, row["path"])
