"""The method on real images with masks, if their folder is beside the clone: it must help, but not beat the oracle."""

import json

import pandas as pd

from tests.conftest import llbnad

LISTS = "realiad_jsons/magnetic_tile.json"


def test_llbnad_helps_on_contaminated_magnetic_tiles(magnetic_tile, tmp_path):
    """On all training images and every other test image: that shows it as well."""
    root, out = tmp_path / "data", tmp_path / "out"
    (root / LISTS).parent.mkdir(parents=True)
    (root / "realiad_1024").symlink_to(magnetic_tile / "realiad_1024")
    lists = json.loads((magnetic_tile / LISTS).read_text())
    (root / LISTS).write_text(json.dumps({**lists, "test": lists["test"][::2]}))
    done = llbnad("run", "--source", "real_iad", "--root", root, "--category", "magnetic_tile",
                  "--noise-ratio", 0.1, "--max-noise-ratio", 0.2, "--detector", "padim", "--suspects", 6,
                  "--set", "encoder.input_size=128", "--set", "calibration.folds=0", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(out / "comparison.csv").set_index("method")
    auroc = table["image_auroc"]
    assert auroc["oracle"] > auroc["none"] + 0.05
    assert auroc["oracle"] + 0.01 > auroc["llbnad"] > max(auroc["none"], auroc["random"]) + 0.03
    assert (table["aupro"].between(0.5, 1)).all() and (table["pixel_auroc"].between(0.5, 1)).all()
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["contamination_after"] < 0.6 * metrics["contamination_before"]
    assert abs(metrics["contamination_before"] - 0.1) < 0.002
