"""Are images that follow each other alike, and does `calibration.burst` keep the promise then? Normal images alone.

    python -m benchmarks.bursts --data FOLDER            # a quarter of an hour; --only NAME for one data set

All normal images of a data set are divided, 70 % to learn and to calibrate on, the rest to count false positives on. A
set's groups.json names images of the same part, taken in a row: then whole parts are dealt out, so that the rest shows
new parts, as tomorrow does. Otherwise single images are. Calibration holds out single images (burst 1), ten in a row
(burst 10), or whichever its own question says (auto); no group is named to it.

Writes benchmarks/results/bursts.csv: per data set and detector, over all splits, what the question counted (tested,
alone, together; `alike` is the share of splits in which it found neighbours alike), and the share of the rest above the
threshold for 5 %.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.regions import DATA, DETECTORS
from llbnad.config import CalibrationConfig, ElpvDataset, RealIadDataset, Runtime
from llbnad.data.manifest import NORMAL
from llbnad.data.sources import elpv, read_source
from llbnad.data.sources.scan_files import scan
from llbnad.features.store import FeatureStore
from llbnad.model.bursts import LENGTH
from llbnad.model.calibrate import calibrate
from llbnad.model.model import train
from llbnad.scenario import make_settings
from llbnad.utils.files import write_csv
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare

SETS = {"magnetic_tile": "magnetic_tile", "mvtec_screw": "screw", "casting": "casting_impeller"}
CELLS = ("mono", "poly")  # of ELPV, which the package brings
SPLITS = 2
LEARNT = 0.7
RATE = 0.05
RESULT = Path("benchmarks/results/bursts.csv")


def normal_images(name: str, data: Path) -> tuple[pd.DataFrame, Path, pd.Series]:
    """Return the manifest of the normal images, the root of its paths, and the part that each shows."""
    if name in SETS:
        root = data / name
        dataset = RealIadDataset(source="real_iad", root=str(root), category=SETS[name])
        found, image_root = read_source(dataset, root)
        manifest, folder = found.manifest, f"{dataset.image_dir}/{dataset.category}/"
        named = root / "groups.json"
        parts = {folder + path: part for path, part in json.loads(named.read_text()).items()} if named.is_file() else {}
    else:
        listing = elpv.records(ElpvDataset(source="elpv", root=".", category=name.removeprefix("elpv_")))
        manifest, image_root, parts = scan(listing).manifest, listing.root, {}
    normal = manifest[manifest["anomaly_class"] == NORMAL].reset_index(drop=True)
    return normal, image_root, normal["path"].map(lambda path: parts.get(path, path))


def measured(name: str, data: Path, cache: Path, splits: int) -> Iterator[dict[str, object]]:
    """Yield one row per detector and split."""
    normal, image_root, parts = normal_images(name, data)
    for detector in DETECTORS:
        settings = make_settings({"detector": detector}, "benchmarks.bursts")
        encoder, config = settings.encoder, settings.detector
        store = FeatureStore(cache, encoder, normal, image_root, str(prepare(Runtime())))
        for seed in range(splits):
            order = stable_shuffle(parts.unique(), seed, "bursts")
            learnt = parts.isin(order[: round(LEARNT * len(order))])
            rows, others = normal[learnt], normal["image_id"][~learnt].tolist()
            scores = train(encoder, config, store, rows["image_id"].tolist(), seed).score(store, others).values
            row: dict[str, object] = {"dataset": name, "detector": detector, "learnt": len(rows), "rest": len(others)}
            for burst in (1, LENGTH):
                calibration = CalibrationConfig(target_fpr=RATE, burst=burst)
                threshold, _ = calibrate(rows, store, encoder, config, calibration, seed)
                assert threshold is not None
                row[f"above_{burst}"] = int((scores > threshold.value).sum())
                if (found := threshold.bursts) is not None:
                    row |= {"tested": found.tested, "alone": found.alone, "together": found.together}
                    row["alike"] = found.alike
            row["above_auto"] = row[f"above_{LENGTH if row['alike'] else 1}"]
            yield row


def summary(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Return the counts over all splits, and the rates that they give."""
    grouped = pd.DataFrame(rows).groupby(["dataset", "detector"], sort=False)
    found = grouped.sum(numeric_only=True).assign(splits=grouped.size(), alike=grouped["alike"].mean())
    for burst in (1, LENGTH, "auto"):
        found[f"fpr_burst_{burst}"] = found.pop(f"above_{burst}") / found["rest"]
    return found.reset_index()


def main() -> None:
    """Measure and write the table."""
    names = [*SETS, *(f"elpv_{kind}" for kind in CELLS)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=names, help="one data set; the table keeps the rows of the others")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, in Real-IAD's layout")
    parser.add_argument("--splits", type=int, default=SPLITS, help="random splits")
    options = parser.parse_args()
    for name in names if options.only is None else [options.only]:
        if name in SETS and not (options.data / name).is_dir():
            print(f"{options.data / name} is not there: left out", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as cache:
            rows = summary(list(measured(name, options.data, Path(cache), options.splits)))
        kept = [pd.read_csv(RESULT).query("dataset != @name")] if RESULT.is_file() else []
        table = pd.concat([*kept, rows]).sort_values(["dataset", "detector"])
        write_csv(table, RESULT)
        print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
