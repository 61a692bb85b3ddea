"""Regions on the real images with masks that are beside the clone: defects touched, and false regions.

    python -m benchmarks.regions            # half an hour on two cores; --only NAME for one data set, --data FOLDER

Writes benchmarks/results/regions.csv by data set, detector, share of defects among the training images and target rate:
numbers of `metrics.json`, and what the rate of normal images with a region is made of (`causes`). A detector is trained
once, and its thresholds are moved to each rate, as `--fpr` does. The data sets are not part of the repository; one that
is not there is named and left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.config import METHOD, InjectedNoise, RealIadDataset, Runtime
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import NORMAL, is_anomalous, training_images
from llbnad.data.sources import read_source
from llbnad.evaluation.evaluate import evaluate, images_to_evaluate
from llbnad.evaluation.pixels import region_rates
from llbnad.features.store import FeatureStore
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.scenario import make_settings
from llbnad.sensitivity.rates import binomial_interval
from llbnad.two_stage import select_images, train_final
from llbnad.utils.files import write_csv
from llbnad.utils.runtime import prepare

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"magnetic_tile": "magnetic_tile", "mvtec_screw": "screw"}  # folder and category
DETECTORS = ("padim", "patchcore")
NOISE = (0.1, 0.0)  # α, share of defects among the training images
RATES = (0.01, 0.05, 0.2)  # share of normal images that may be called defects, or show a region
RESULT = Path("benchmarks/results/regions.csv")
KEYS = ["dataset", "detector", "alpha", "target_fpr"]
COLUMNS = (
    "image_auroc", "aupro", "fpr_at_threshold", "recall_at_threshold",
    "normal_with_region", "false_regions_per_normal", "region_recall", "min_area",
)  # fmt: skip

Maps = Mapping[str, np.ndarray]  # patch maps (h, w) by image id


def measured(root: Path, category: str, cache: Path) -> Iterator[dict[str, object]]:
    """Yield a row for each share of defects, detector and rate."""
    dataset = RealIadDataset(source="real_iad", root=str(root), category=category)
    scan, image_root = read_source(dataset, root)
    for noise in NOISE:
        noisy = contaminate(scan.manifest, InjectedNoise(protocol="replace", ratio=noise, max_ratio=max(NOISE)), 0)
        train, selection = training_images(noisy), None
        for detector in DETECTORS:
            settings = make_settings({"detector": detector, "comparators": []}, "benchmarks.regions")
            store = FeatureStore(cache, settings.encoder, noisy, image_root, str(prepare(Runtime())))
            selection = selection or select_images(train, store, settings)  # the same for every final detector
            sets, models = train_final(train, selection, store, settings)
            model, own = models[METHOD], evaluate(models, sets, noisy, store, image_root, settings.seed).metrics()
            if model.threshold is None or model.pixel_threshold is None:
                raise RuntimeError("the settings calibrate no threshold")
            tested = images_to_evaluate(noisy)
            ids = tested["image_id"].tolist()
            scores, maps = model.score_with_maps(store, ids, "test", np.float32)
            rejected = train[(train["anomaly_class"] == NORMAL) & ~train["image_id"].isin(selection.purified.kept)]
            _, unlearnt = model.score_with_maps(store, rejected["image_id"].tolist(), "rejected", np.float32)
            normal_share = len(rejected) / (train["anomaly_class"] == NORMAL).sum()
            for rate in RATES:
                threshold, pixels = model.threshold.at(rate), model.pixel_threshold.at(rate)
                found = {
                    **{name: own[name] for name in ("image_auroc", "aupro", "min_area")},
                    **threshold.rates(scores.of(ids), is_anomalous(tested)),
                    **region_rates(pixels, maps, _by_id(tested), image_root, f"{rate}"),
                }
                named = dict(zip(KEYS, (root.name, detector, noise, rate), strict=True))
                more = causes(pixels, maps, _by_id(tested), unlearnt, _by_id(rejected), float(normal_share))
                yield {**named, **{name: found[name] for name in COLUMNS}, **more}


def causes(
    pixels: PixelThreshold, maps: Maps, tested: Mapping[str, Any], unlearnt: Maps, rejected: Mapping[str, Any],
    rejected_share: float,
) -> dict[str, object]:  # fmt: skip
    """Return what the rate of normal images with a region is made of.

    The level is calibrated on kept images. Of all normal images, a share is like those that were rejected, which the
    final detector did not learn either: `expected` weighs the rates of both by their shares. A rate on the test images
    beyond `expected`, by more than its interval, is a difference between training and test images.

    Args:
        pixels: where regions begin.
        maps: of the test images, by the final detector.
        tested: rows of the test images by id.
        unlearnt: maps of the normal training images that were rejected.
        rejected: rows of these images by id.
        rejected_share: their share of the normal training images.
    """
    normal = {image_id: row for image_id, row in tested.items() if row["anomaly_class"] == NORMAL}
    shown, of_rejected = with_region(pixels, maps, normal), with_region(pixels, unlearnt, rejected)
    kept = float((pixels.levels.scores > pixels.value).mean())
    low, high = binomial_interval(np.array([shown]), np.array([len(normal)]))
    share = of_rejected / len(rejected) if rejected else 0.0
    return {
        "normal_tested": len(normal),
        "low": float(low[0]),
        "high": float(high[0]),
        "calibrated": pixels.levels.n,
        "decided_by": pixels.levels.decided_by,
        "promised_low": pixels.levels.fpr_low,
        "promised_high": pixels.levels.fpr_high,
        "kept_with_region": kept,
        "rejected_share": rejected_share,
        "rejected_with_region": share if rejected else None,
        "expected": (1 - rejected_share) * kept + rejected_share * share,
    }


def with_region(pixels: PixelThreshold, maps: Maps, rows: Mapping[str, Any]) -> int:
    """Return how many images have a region. `rows` are rows of the manifest by image id."""
    sizes = {image_id: (int(row["width"]), int(row["height"])) for image_id, row in rows.items()}
    return sum(bool(pixels.regions(maps[image_id], size)) for image_id, size in sizes.items())


def _by_id(rows: pd.DataFrame) -> dict[str, Any]:
    return dict(zip(rows["image_id"], rows.to_dict("records"), strict=True))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SETS), help="one data set; the table keeps the rows of the others")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, in Real-IAD's layout")
    options = parser.parse_args()
    found = False
    for name, category in SETS.items():
        if options.only not in (None, name):
            continue
        if not (options.data / name).is_dir():
            print(f"{name} left out: it is not at {options.data / name}")
            continue
        found = True
        with tempfile.TemporaryDirectory() as cache:
            for row in measured(options.data / name, category, Path(cache)):
                write(row)  # at once, because a run takes minutes
    if not found:
        sys.exit(f"error: no data set at {options.data}: name their folder with --data")


def write(row: Mapping[str, object]) -> None:
    """Put a row into the table, in the place of an old one."""
    new = pd.DataFrame([row])
    if RESULT.exists():
        old = pd.read_csv(RESULT).set_index(KEYS)
        new = pd.concat([old.drop(index=tuple(row[key] for key in KEYS), errors="ignore").reset_index(), new])
    write_csv(new.sort_values(KEYS), RESULT)


if __name__ == "__main__":
    main()
