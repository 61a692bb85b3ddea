"""Regions on the real images with masks that are beside the clone: defects touched, and false regions.

    python -m benchmarks.regions            # some minutes on two cores; --only NAME for one data set, --data FOLDER

Writes benchmarks/results/regions.csv: one row per data set and share of defects among the training images, with the
numbers of `metrics.json` of an ordinary `llbnad run`. The data sets are not part of the repository; one that is not
there is named and left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from llbnad.utils.files import write_csv

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"magnetic_tile": "magnetic_tile", "mvtec_screw": "screw"}  # folder and category
NOISE = (0.0, 0.1)  # α, share of defects among the training images
SIZES = (224,)  # encoder.input_size: squares that images are squeezed to
RESULT = Path("benchmarks/results/regions.csv")
COLUMNS = (
    "n_selected", "contamination_after", "image_auroc", "aupro", "fpr_at_threshold", "recall_at_threshold",
    "normal_with_region", "false_regions_per_normal", "region_recall", "min_area",
)  # fmt: skip


def measured(root: Path, category: str, noise: float, size: int) -> dict[str, object]:
    """Return the numbers of one run."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "llbnad.cli", "run", "--source", "real_iad", "--root", str(root),
                   "--category", category, "--noise-ratio", str(noise), "--max-noise-ratio", "0.1",
                   "--detector", "patchcore", "--no-comparators", "--set", f"encoder.input_size={size}",
                   "--set", "detector.memory_size=4096", "--out", out]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        metrics = json.loads((Path(out) / "metrics.json").read_text())
    return {"dataset": root.name, "input_size": size, "alpha": noise, **{name: metrics[name] for name in COLUMNS}}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(SETS), help="one data set; the table keeps the rows of the others")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets, in Real-IAD's layout")
    options = parser.parse_args()
    only, data = options.only, options.data
    rows = []
    for name, category in SETS.items():
        if only not in (None, name):
            continue
        if not (data / name).is_dir():
            print(f"{name} left out: it is not at {data / name}")
            continue
        rows += [measured(data / name, category, noise, size) for size in SIZES for noise in NOISE]
    if not rows:
        sys.exit(f"error: no data set at {data}: name their folder with --data")
    kept = pd.read_csv(RESULT).query("dataset != @only") if only and RESULT.exists() else pd.DataFrame()
    table = pd.concat([kept, pd.DataFrame(rows)], ignore_index=True).sort_values(["dataset", "input_size", "alpha"])
    write_csv(table, RESULT)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
