"""Pictures `sensitivity.png` and `synthetic_defects.jpg`: which synthetic defects the demo's detector finds."""

import shutil
from pathlib import Path

from benchmarks.pictures.demo import Demo
from benchmarks.pictures.tiles import as_jpeg
from llbnad.config import SensitivityConfig
from llbnad.inference.predict import Predictor
from llbnad.sensitivity.report import CURVES, DRAWN, measure
from llbnad.utils.hashing import stable_shuffle

DRAWN_ON = 24  # images


def draw(demo: Demo, out: Path) -> None:
    """Draw the share of synthetic defects that is found, and the drawings on one image."""
    rows = demo.tested(False)
    chosen = sorted(stable_shuffle(rows["image_id"], 0, "sensitivity")[:DRAWN_ON])
    paths = dict(zip(rows["image_id"], demo.paths(rows), strict=True))
    images, sides = {one: paths[one] for one in chosen}, [300] * len(chosen)
    settings = SensitivityConfig(images=DRAWN_ON, contrasts=(0.2, 0.1, 0.4))
    measure(Predictor(demo.model), images, sides, settings, demo.threshold, demo.work, "normal test images")
    shutil.copyfile(demo.work / CURVES, out / "sensitivity.png")
    as_jpeg(demo.work / DRAWN, out / "synthetic_defects.jpg")
