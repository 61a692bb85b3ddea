"""Regions on the real images with masks that are beside the clone: defects touched, and false regions.

    python -m benchmarks.regions            # half an hour on two cores; --only NAME for one data set, --data FOLDER

Writes benchmarks/results/regions.csv: the numbers of `metrics.json` by data set, detector, share of defects among the
training images and target rate. A detector is trained once, and its thresholds are moved to each rate, as `--fpr` does.
The data sets are not part of the repository; one that is not there is named and left out.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.config import METHOD, InjectedNoise, RealIadDataset, Runtime
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import is_anomalous
from llbnad.data.sources import read_source
from llbnad.evaluation.evaluate import images_to_evaluate, region_rates
from llbnad.features.store import FeatureStore
from llbnad.scenario import make_settings
from llbnad.two_stage import run_two_stage
from llbnad.utils.files import write_csv
from llbnad.utils.runtime import prepare

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"magnetic_tile": "magnetic_tile", "mvtec_screw": "screw"}  # folder and category
DETECTORS = ("padim", "patchcore")
NOISE = (0.1, 0.0)  # α, share of defects among the training images
RATES = (0.01, 0.05, 0.2)  # share of normal images that may be called defects, or show a region
RESULT = Path("benchmarks/results/regions.csv")
COLUMNS = (
    "image_auroc", "aupro", "fpr_at_threshold", "recall_at_threshold",
    "normal_with_region", "false_regions_per_normal", "region_recall", "min_area",
)  # fmt: skip


def measured(root: Path, category: str, cache: Path) -> Iterator[dict[str, object]]:
    """Yield a row for each detector, share of defects and rate."""
    dataset = RealIadDataset(source="real_iad", root=str(root), category=category)
    scan, image_root = read_source(dataset, root)
    for noise in NOISE:
        noisy = contaminate(scan.manifest, InjectedNoise(protocol="replace", ratio=noise, max_ratio=max(NOISE)), 0)
        for detector in DETECTORS:
            settings = make_settings({"detector": detector, "comparators": []}, "benchmarks.regions")
            store = FeatureStore(cache, settings.encoder, noisy, image_root, str(prepare(Runtime())))
            run = run_two_stage(noisy, store, image_root, settings)
            model = run.models[METHOD]
            if model.threshold is None or model.pixel_threshold is None:
                raise RuntimeError("the settings calibrate no threshold")
            tested = images_to_evaluate(noisy)
            ids = tested["image_id"].tolist()
            rows = dict(zip(ids, tested.to_dict("records"), strict=True))
            scores, maps = model.score_with_maps(store, ids, "test", np.float32)
            own = run.evaluation.metrics()
            for rate in RATES:
                threshold, pixels = model.threshold.at(rate), model.pixel_threshold.at(rate)
                found = {
                    **{name: own[name] for name in ("image_auroc", "aupro", "min_area")},
                    **threshold.rates(scores.of(ids), is_anomalous(tested)),
                    **region_rates(pixels, maps, rows, image_root, f"{rate}"),
                }
                named = {"dataset": root.name, "detector": detector, "alpha": noise, "target_fpr": rate}
                yield {**named, **{name: found[name] for name in COLUMNS}}


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
        rows = []
        with tempfile.TemporaryDirectory() as cache:
            for row in measured(options.data / name, category, Path(cache)):
                rows.append(row)
                write(name, pd.DataFrame(rows))  # at once, because a run takes minutes
    if not found:
        sys.exit(f"error: no data set at {options.data}: name their folder with --data")


def write(dataset: str, rows: pd.DataFrame) -> None:
    """Put the rows of a data set into the table, in place of its old ones."""
    others = pd.read_csv(RESULT) if RESULT.exists() else pd.DataFrame(columns=["dataset"])
    table = pd.concat([others[others["dataset"] != dataset], rows], ignore_index=True)
    write_csv(table.sort_values(["dataset", "detector", "alpha", "target_fpr"]), RESULT)


if __name__ == "__main__":
    main()
