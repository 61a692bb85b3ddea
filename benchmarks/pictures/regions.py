"""Picture `regions.jpg`: what `llbnad predict` says of test images."""

from pathlib import Path

import pandas as pd

from benchmarks.pictures.demo import Demo
from benchmarks.pictures.tiles import as_jpeg, evenly
from llbnad.inference.image_files import SHEET
from llbnad.inference.write import predict


def draw(demo: Demo, out: Path) -> None:
    """Draw what `llbnad predict` says of test images: defects from the surest to the faintest, and normal ones."""
    defects, normal = demo.tested(True), demo.tested(False)
    chosen = pd.concat([evenly(defects, 8), evenly(normal, 4)])
    predict(demo.model, demo.paths(chosen), demo.work, threshold=demo.threshold, pixels=demo.model.pixel_threshold)
    as_jpeg(demo.work / SHEET, out / "regions.jpg")
