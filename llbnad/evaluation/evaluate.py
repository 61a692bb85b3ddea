"""Test results of the final detector and its comparators, with exact metrics (`llbnad.evaluation.metrics`).

Image metrics use the data set's own labels. Pixel metrics compare the patch map with the mask. The map is resized
bilinearly to the encoder's input size and smoothed with a Gaussian of σ = 4 px at 392 px; the mask has the same size.
With another view than `squeeze`, that size is the canvas's, and σ is that of one tile. Pixels beside the image or
outside of the region of interest are not counted, whatever the mask says there.
If no test image has a mask, pixel metrics are None, not zero, and so are those of regions
(`llbnad.evaluation.region_rates`). If some images have no label, image metrics use the labelled images alone, and
`n_tested` is their number.

An image that a detector learnt is no test of it: its score is near 0 whatever it shows. Where no image is set aside for
testing, as on a production line, all images are scored, but no metric is given. What can be said without a test set is
`recall_of_rejected`: the share of the rejected images with a defect label that lie above the threshold. The final
detector has not learnt them. It is no recall: defects that purification kept do not count, and `none` learnt all.
`rejected_called_normal` counts those of the rejected images that the final detector calls normal, with a label or not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from llbnad.config import METHOD
from llbnad.data.canvas import off_canvas
from llbnad.data.manifest import NORMAL, contamination, has_labels, is_anomalous, training_images
from llbnad.data.names import shown_name
from llbnad.encoders.canvases import canvas_of
from llbnad.evaluation.metrics import PixelMetrics, PixelScores, ranking
from llbnad.evaluation.pixels import map_and_mask, region_rates
from llbnad.evaluation.results import IMAGE_METRICS, PIXEL_METRICS, Evaluation
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.scores import Scores
from llbnad.model.threshold import FalsePositives, Threshold
from llbnad.utils.progress import track


def images_to_evaluate(noisy: pd.DataFrame) -> pd.DataFrame:
    """Return the test images, or all images if none is set aside for testing, as on a production line."""
    test = noisy[noisy["split"] == "test"]
    return (test if len(test) else noisy).reset_index(drop=True)


def evaluate(
    models: Mapping[str, Model],
    training_sets: Mapping[str, Sequence[str]],
    noisy: pd.DataFrame,
    features: FeatureSource,
    image_root: Path,
    seed: int,
) -> Evaluation:
    """Score the test images with the model of every method and compare the methods. Equal models are scored once.

    If no image is set aside for testing, all images are scored, and metrics are None.

    Args:
        models: trained models by method.
        training_sets: image ids that each model was trained on, by method.
        noisy: manifest of the scenario, train and test.
        features: features of the test images.
        image_root: folder that mask paths are relative to.
        seed: seed to report in each row.
    """
    images = images_to_evaluate(noisy)
    train = training_images(noisy)
    tested = images[images["split"] == "test"]
    results: dict[str, Scored] = {}
    scores, rows = {}, []
    regions_of = models[METHOD].pixel_threshold if METHOD in models else None
    own = models[METHOD].digest() if METHOD in models else None
    for method, model in models.items():
        chosen = tuple(training_sets[method])
        key = model.digest()
        if key not in results:
            pixels = regions_of if key == own else None
            results[key] = _score(model, pixels, images, features, image_root, f"test {method}")
        scores[method], pixel, _ = results[key]
        rows.append(
            {
                "method": method,
                "seed": seed,
                **_image_metrics(scores[method], tested),
                **_pixel_row(pixel),
                "n_train": len(train),
                "n_selected": len(chosen),
                "contamination_before": contamination(train),
                "contamination_after": contamination(train[train["image_id"].isin(chosen)]),
            }
        )
    comparison = pd.DataFrame(rows)
    measured = [*IMAGE_METRICS, *PIXEL_METRICS, "contamination_before", "contamination_after"]
    threshold = models[METHOD].threshold if METHOD in models else None
    decided = Decided({}, None, [])
    if threshold is not None:
        decided = _decide(threshold, scores[METHOD], tested, train[~train["image_id"].isin(training_sets[METHOD])])
    decision = decided.rates
    if regions_of is not None and own is not None:
        decision |= {"pixel_threshold": regions_of.value, "min_area": regions_of.min_area, **results[own].regions}
    labelled, of_tested = (int(some["anomaly_class"].notna().sum()) for some in (images, tested))
    comparison = comparison.astype(dict.fromkeys(measured, "float64"))
    has_test = not tested.empty
    return Evaluation(
        comparison,
        scores,
        labelled,
        of_tested,
        has_test,
        threshold,
        decision,
        decided.false_positives,
        decided.called_normal,
    )


class Decided(NamedTuple):
    """A threshold's decision on images, counted."""

    rates: dict[str, float | None]  # the threshold itself, and shares of images above it
    false_positives: FalsePositives | None  # None without a normal test image
    called_normal: list[str]  # names of rejected images below it, where no image is set aside for testing


def _decide(threshold: Threshold, scores: Scores, tested: pd.DataFrame, rejected: pd.DataFrame) -> Decided:
    """Count the test images above a threshold, or the rejected ones where no image is set aside for testing."""
    rates = threshold.rates(scores.of(tested["image_id"].tolist()), is_anomalous(tested))
    found: dict[str, float | None] = {"threshold": threshold.value, **rates}
    if tested.empty:
        values = scores.of(rejected["image_id"].tolist())
        called_normal = [shown_name(path) for path in rejected["path"][values <= threshold.value]]
        found["recall_of_rejected"] = threshold.rates(values, is_anomalous(rejected))["recall_at_threshold"]
        return Decided({**found, "rejected_called_normal": len(called_normal)}, None, called_normal)
    normal = tested[tested["anomaly_class"] == NORMAL]["image_id"].tolist()
    above = int((scores.of(normal) > threshold.value).sum())
    return Decided(found, FalsePositives(above, len(normal)) if normal else None, [])


class Scored(NamedTuple):
    """Measurements of one model on the test images."""

    scores: Scores
    pixels: PixelMetrics | None  # None without masks
    regions: Mapping[str, float | None]  # see `REGION_METRICS`; empty without masks or without a pixel threshold


def _score(
    model: Model,
    regions_of: PixelThreshold | None,
    images: pd.DataFrame,
    features: FeatureSource,
    image_root: Path,
    description: str,
) -> Scored:
    ids = images["image_id"].tolist()
    untested = not (images["split"] == "test").all()
    if untested or not has_labels(images) or images["mask_path"].isna().all():
        return Scored(model.score(features, ids, description), None, {})
    scores, maps = model.score_with_maps(features, ids, description, np.float32)
    canvas = canvas_of(model.encoder)
    frames = canvas.frames(images, model.region)
    whole = canvas.frame(canvas.size)
    rows = dict(zip(ids, images.to_dict("records"), strict=True))
    # A normal image is normal in every pixel. An anomalous image without a mask, or with an empty mask, says nothing
    # about its pixels.
    silent = set(images["image_id"][is_anomalous(images).astype(bool)])
    pixels = PixelScores()
    for image_id in ids:
        if not pd.isna(rows[image_id]["mask_path"]):
            frame = frames.get(image_id, whole)
            pixel_map, mask = map_and_mask(maps[image_id], rows[image_id], image_root, frame, model.encoder.input_size)
            pixels.add_defects(pixel_map, mask)
            if mask.any():
                silent.discard(image_id)
    for image_id in track(ids, f"pixels of {description}"):
        if image_id not in silent:
            frame = frames.get(image_id, whole)
            pixel_map, mask = map_and_mask(maps[image_id], rows[image_id], image_root, frame, model.encoder.input_size)
            if frames:  # the rest is not scored
                inside = frame.pixels()
                pixel_map, mask = pixel_map[inside][None], mask[inside][None]
            pixels.add_normal(pixel_map, mask)
    regions = {}
    if regions_of is not None:
        regions = region_rates(regions_of, off_canvas(maps, frames), rows, image_root, description)
    return Scored(scores, pixels.result(), regions)


def _image_metrics(scores: Scores, images: pd.DataFrame) -> dict[str, float | None]:
    labelled = images[images["anomaly_class"].notna()]
    anomalous = is_anomalous(labelled).astype(bool).to_numpy()
    values = scores.of(labelled["image_id"].tolist())
    found = ranking(values[~anomalous], values[anomalous])
    return dict(zip(IMAGE_METRICS, (found.auroc, found.ap, found.f1_max) if found else (None,) * 3, strict=True))


def _pixel_row(pixel: PixelMetrics | None) -> dict[str, float | None]:
    values = (pixel.auroc, pixel.ap, pixel.f1_max, pixel.aupro) if pixel else (None,) * 4
    return dict(zip(PIXEL_METRICS, values, strict=True))
