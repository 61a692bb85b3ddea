"""Does the level of regions keep its rate where all its assumptions hold? Random splits of normal images alone.

    python -m benchmarks.region_splits --data FOLDER         # --only NAME for one data set

Nothing is injected and nothing purified: all normal images of a data set are divided at random, 70 % to learn and to
calibrate on as a scenario does, the rest to count regions on. This leaves out selection, defects, and every difference
between a source's own training and test images. What else is varied:

* `divided` and `folds`: a set's groups.json names images of the same part, taken in a row. Either single images are
  dealt out, so that learnt images have siblings among the others, or whole groups; and likewise for calibration.
* `bound`: the robust bound limits the level, as usual, or does not.

Writes benchmarks/results/region_splits.csv. Shares are over all images of all splits; `lowest` and `highest` are the
splits' own.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.regions import DATA, DETECTORS, SETS, with_region
from llbnad.config import Bound, CalibrationConfig, RealIadDataset, Runtime
from llbnad.data.manifest import NORMAL
from llbnad.data.sources import read_source
from llbnad.features.store import FeatureStore
from llbnad.model.calibrate import calibrate
from llbnad.model.model import train
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.scenario import make_settings
from llbnad.utils.files import write_csv
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare

SPLITS = 4
LEARNT = 0.7
RATES = (0.01, 0.05)
BOUNDS: tuple[Bound, ...] = ("none", "robust")
WAYS = (("images", "images"), ("groups", "images"), ("groups", "groups"))  # divided, folds
RESULT = Path("benchmarks/results/region_splits.csv")
KEYS = ["dataset", "detector", "divided", "folds", "bound", "target"]


def measured(
    root: Path, category: str, cache: Path, splits: int, detectors: Sequence[str]
) -> Iterator[dict[str, object]]:
    """Yield one row per detector, way, split, bound and rate: images tested, with a region, called defects."""
    scan, image_root = read_source(RealIadDataset(source="real_iad", root=str(root), category=category), root)
    normal = scan.manifest[scan.manifest["anomaly_class"] == NORMAL].reset_index(drop=True)
    grouped = normal.assign(sample_id=normal["path"].map(_groups(root, category)))
    single = grouped["sample_id"].nunique() == len(grouped)
    for detector in detectors:
        settings = make_settings({"detector": detector}, "benchmarks.region_splits")
        encoder, config = settings.encoder, settings.detector
        store = FeatureStore(cache, encoder, normal, image_root, str(prepare(Runtime())))
        for divided, folds in WAYS[:1] if single else WAYS:
            for seed in range(splits):
                units = grouped if divided == "groups" else normal
                order = stable_shuffle(units["sample_id"].unique(), seed, "region splits")
                learnt = units["sample_id"].isin(order[: round(LEARNT * len(order))])
                rows = (grouped if folds == "groups" else normal)[learnt]
                threshold, pixels = calibrate(rows, store, encoder, config, CalibrationConfig(burst=1), seed)
                assert threshold is not None and pixels is not None
                model = train(encoder, config, store, rows["image_id"].tolist(), seed)
                others = normal[~learnt]
                scores, maps = model.score_with_maps(store, others["image_id"].tolist(), "test", np.float32)
                by_id = dict(zip(others["image_id"], others.to_dict("records"), strict=True))
                for bound in BOUNDS:
                    for rate in RATES:
                        levels = threshold_at(pixels.levels.scores, rate, bound, unsure=False)
                        called = threshold_at(threshold.scores, rate, bound).value
                        yield {
                            "dataset": root.name,
                            "detector": detector,
                            "divided": divided,
                            "folds": folds,
                            "bound": bound,
                            "target": rate,
                            "split": seed,
                            "learnt": len(rows),
                            "tested": len(others),
                            "with_region": with_region(PixelThreshold(levels, pixels.min_area), maps, by_id),
                            "called": int((scores.values > called).sum()),
                        }


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares over all splits."""
    rows = rows.assign(share=rows["with_region"] / rows["tested"])
    found = rows.groupby(KEYS).agg(
        splits=("split", "nunique"), learnt=("learnt", "mean"), tested=("tested", "sum"),
        with_region=("with_region", "sum"), called=("called", "sum"), lowest=("share", "min"), highest=("share", "max"),
    ).reset_index()  # fmt: skip
    for name in ("with_region", "called"):
        found[name] /= found["tested"]
    return found


def _groups(root: Path, category: str) -> dict[str, str]:
    """Return the group of each image, by the path that a manifest has."""
    folder = f"{RealIadDataset(root='.', category=category).image_dir}/{category}/"
    found = json.loads((root / "groups.json").read_text())
    return {folder + path: group for path, group in found.items()}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SETS), help="one data set; the table keeps the rows of the others")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, in Real-IAD's layout")
    parser.add_argument("--splits", type=int, default=SPLITS, help="random splits of each kind")
    parser.add_argument("--detector", choices=DETECTORS, help="one detector; the table keeps the rows of the other")
    options = parser.parse_args()
    detectors = DETECTORS if options.detector is None else (options.detector,)
    for name, category in SETS.items():
        root = options.data / name
        if options.only not in (None, name):
            continue
        if not (root / "groups.json").is_file():
            sys.exit(f"error: {root / 'groups.json'} does not exist: name the folder of the data sets with --data")
        rows = []
        with tempfile.TemporaryDirectory() as cache:
            for row in measured(root, category, Path(cache), options.splits, detectors):
                rows.append(row)
                new = summary(pd.DataFrame(rows))
                if RESULT.exists():
                    old = pd.read_csv(RESULT)
                    mine = (old["dataset"] == name) & old["detector"].isin(new["detector"])
                    new = pd.concat([old[~mine], new])
                write_csv(new.sort_values(KEYS), RESULT)


if __name__ == "__main__":
    main()
