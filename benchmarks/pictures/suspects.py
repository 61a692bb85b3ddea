"""Pictures `scores.png` and `suspects.jpg`: what stage 1 scored and what it calls suspicious."""

import shutil
from pathlib import Path

from benchmarks.pictures.demo import Demo
from benchmarks.pictures.tiles import as_jpeg
from llbnad.data.canvas import off_canvas
from llbnad.data.manifest import training_images
from llbnad.evaluation.report import purification_plots

SHOWN_SUSPECTS = 18


def draw(demo: Demo, out: Path) -> None:
    """Draw the histogram of stage 1 and its suspects."""
    images = training_images(demo.noisy)
    scored = images.merge(demo.run.scores["score"].reset_index(), on="image_id", validate="1:1")
    shown = demo.run.scores["score"].nlargest(SHOWN_SUSPECTS).index
    heat = off_canvas({one: demo.run.heat[one] for one in shown}, demo.store.frames)
    purification_plots(scored, demo.run.purified, heat, demo.root, demo.work, demo.settings.aggregation)
    shutil.copyfile(demo.work / "scores.png", out / "scores.png")
    as_jpeg(demo.work / "suspects.png", out / "suspects.jpg")
