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
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from llbnad.config import METHOD
from llbnad.data.canvas import Frame, off_canvas
from llbnad.data.manifest import NORMAL, contamination, has_labels, is_anomalous, training_images
from llbnad.data.masks import marked
from llbnad.encoders.canvases import canvas_of
from llbnad.evaluation.metrics import PixelMetrics, PixelScores, ranking
from llbnad.evaluation.region_rates import REGION_METRICS, RegionRates
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.scores import Scores
from llbnad.model.threshold import Threshold
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

SMOOTHING = 4 / 392  # σ of the Gaussian, as a share of the pixel map's side
IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
DECISION = (
    "threshold",
    "fpr_at_threshold",
    "recall_at_threshold",
    "recall_of_rejected",
    "unsure_share",
    "pixel_threshold",
    "min_area",
    *REGION_METRICS,
)
UNTESTED = (
    "no image is set aside for testing, and an image that a detector learnt is no test of it: scores only, no metrics"
)
COUNTS = ("n_train", "n_selected", "contamination_before", "contamination_after")


@dataclass(frozen=True)
class Evaluation:
    """Results of the test."""

    comparison: pd.DataFrame  # one row per method: method, seed, metrics, counts
    scores: Mapping[str, Scores]  # scores of the evaluated images, by method
    n_labelled: int  # evaluated images with a label
    n_tested: int  # those of them that are set aside for testing: the images that all metrics are of
    has_test: bool  # whether images are set aside for testing
    threshold: Threshold | None = None  # threshold of the final detector's image scores
    decision: Mapping[str, float | None] = field(default_factory=dict)  # threshold and its rates, see `DECISION`

    def metrics(self) -> dict[str, float | int | None]:
        """Return metrics, counts and decision of the final detector. A metric that does not apply is None."""
        row = self.comparison[self.comparison["method"] == METHOD].iloc[0]
        values = {name: None if pd.isna(row[name]) else row[name].item() for name in IMAGE_METRICS + PIXEL_METRICS}
        counts = {name: None if pd.isna(row[name]) else float(row[name]) for name in COUNTS}
        counts |= {"n_train": int(row["n_train"]), "n_selected": int(row["n_selected"])}
        known = {"n_labelled": self.n_labelled, "n_tested": self.n_tested}
        return {**values, **counts, **known, **{name: self.decision.get(name) for name in DECISION}}

    def caveats(self) -> list[str]:
        """Return what to know where no image was set aside for testing, one line each; empty if there was a test."""
        if self.has_test:
            return []
        lines = [UNTESTED]
        found = self.decision.get("recall_of_rejected")
        if found is not None:
            lines.append(f"of the rejected images with a defect label {found:.0%} are called defects")
        return lines

    def predictions(self, images: pd.DataFrame) -> pd.DataFrame:
        """Return one row per method and image: method, image_id, path, anomaly_class, score and label.

        The label is the final detector's decision: normal, unsure or defect. It is None for other methods, or without a
        threshold.

        Args:
            images: manifest rows of the evaluated images.
        """
        known = images[["image_id", "path", "anomaly_class"]]
        tables = [known.merge(s.series().reset_index(), on="image_id", validate="1:1") for s in self.scores.values()]
        rows = pd.concat(tables, keys=list(self.scores), names=["method"]).reset_index("method").reset_index(drop=True)
        label = pd.Series(None, index=rows.index, dtype="object")
        if self.threshold is not None:
            own = rows["method"] == METHOD
            label[own] = self.threshold.labels(rows["score"][own].to_numpy())
        return rows.assign(label=label)


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
    decision: dict[str, float | None] = {}
    if threshold is not None:
        rates = threshold.rates(scores[METHOD].of(tested["image_id"].tolist()), is_anomalous(tested))
        decision = {"threshold": threshold.value, **rates}
        if tested.empty:
            rejected = train[~train["image_id"].isin(training_sets[METHOD])]
            found = threshold.rates(scores[METHOD].of(rejected["image_id"].tolist()), is_anomalous(rejected))
            decision["recall_of_rejected"] = found["recall_at_threshold"]
    if regions_of is not None and own is not None:
        decision |= {"pixel_threshold": regions_of.value, "min_area": regions_of.min_area, **results[own].regions}
    labelled, of_tested = (int(some["anomaly_class"].notna().sum()) for some in (images, tested))
    comparison = comparison.astype(dict.fromkeys(measured, "float64"))
    return Evaluation(comparison, scores, labelled, of_tested, not tested.empty, threshold, decision)


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
            pixel_map, mask = _pixels(maps[image_id], rows[image_id], image_root, frame, model.encoder.input_size)
            pixels.add_defects(pixel_map, mask)
            if mask.any():
                silent.discard(image_id)
    for image_id in track(ids, f"pixels of {description}"):
        if image_id not in silent:
            frame = frames.get(image_id, whole)
            pixel_map, mask = _pixels(maps[image_id], rows[image_id], image_root, frame, model.encoder.input_size)
            if frames:  # the rest is not scored
                inside = frame.pixels()
                pixel_map, mask = pixel_map[inside][None], mask[inside][None]
            pixels.add_normal(pixel_map, mask)
    regions = {}
    if regions_of is not None:
        regions = region_rates(regions_of, off_canvas(maps, frames), rows, image_root, description)
    return Scored(scores, pixels.result(), regions)


def region_rates(
    threshold: PixelThreshold,
    maps: Mapping[str, np.ndarray],
    rows: Mapping[str, Mapping[Any, Any]],
    image_root: Path,
    description: str,
) -> dict[str, float | None]:
    """Return the rates of `REGION_METRICS`, in pixels of the original images.

    A defective image without a mask, or with an empty mask, says nothing about regions.

    Args:
        threshold: where regions begin.
        maps: patch maps (h, w) over the whole image, by image id.
        rows: rows of the manifest by image id.
        image_root: folder that mask paths are relative to.
        description: what is measured, for the progress line.
    """
    rates = RegionRates()
    for image_id, row in track(rows.items(), f"regions of {description}", len(rows)):
        size = (int(row["width"]), int(row["height"]))
        regions = threshold.regions(maps[image_id], size)
        if row["anomaly_class"] == NORMAL:
            rates.add_normal(regions)
        elif not pd.isna(row["mask_path"]):
            rates.add_defects(regions, marked(row, image_root, size))
    return rates.result()


def _pixels(
    patch_map: np.ndarray, row: Mapping[Any, Any], image_root: Path, frame: Frame, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image's pixel map and its mask over the canvas, both (H, W). Without a mask file the mask is empty.

    What the mask marks outside of the region is left out.
    """
    import torch

    found = pixel_maps(torch.from_numpy(patch_map[None]), frame.canvas, side)[0].numpy()
    left, top, right, bottom = frame.box
    mask = frame.on_canvas(marked(row, image_root, (right - left, bottom - top)))
    return found, mask if frame.region is None else mask & frame.pixels()


def pixel_maps(maps: "torch.Tensor", size: tuple[int, int], side: int) -> "torch.Tensor":
    """Resize and smooth patch maps: (B, h, w) -> (B, H, W).

    Args:
        maps: (B, h, w).
        size: width and height of the result.
        side: pixels of a tile's side, which decide the smoothing.
    """
    from torch.nn import functional
    from torchvision.transforms.v2.functional import gaussian_blur

    resized = functional.interpolate(maps[:, None], size=size[::-1], mode="bilinear", align_corners=False)
    sigma = SMOOTHING * side
    kernel = 2 * round(4 * sigma) + 1
    # one direction after the other, because both at once take several times as long
    along_rows = gaussian_blur(resized, [kernel, 1], [sigma, sigma])
    return gaussian_blur(along_rows, [1, kernel], [sigma, sigma])[:, 0]


def _image_metrics(scores: Scores, images: pd.DataFrame) -> dict[str, float | None]:
    labelled = images[images["anomaly_class"].notna()]
    anomalous = is_anomalous(labelled).astype(bool).to_numpy()
    values = scores.of(labelled["image_id"].tolist())
    found = ranking(values[~anomalous], values[anomalous])
    return dict(zip(IMAGE_METRICS, (found.auroc, found.ap, found.f1_max) if found else (None,) * 3, strict=True))


def _pixel_row(pixel: PixelMetrics | None) -> dict[str, float | None]:
    values = (pixel.auroc, pixel.ap, pixel.f1_max, pixel.aupro) if pixel else (None,) * 4
    return dict(zip(PIXEL_METRICS, values, strict=True))
