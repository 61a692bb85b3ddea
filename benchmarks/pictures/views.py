"""Picture `views.jpg`: the same defects as detectors of three views see them."""

from dataclasses import replace
from pathlib import Path

from benchmarks.pictures.demo import Demo
from benchmarks.pictures.tiles import CALM, as_jpeg, evenly, tile
from llbnad.config import EncoderConfig, RegionConfig
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.evaluation.figures import Tile, contact_sheet
from llbnad.features.store import FeatureStore
from llbnad.inference.predict import Predictor
from llbnad.model.calibrate import calibrate
from llbnad.model.model import train
from llbnad.utils.hashing import stable_shuffle

LEARNT = 80  # images of a view's detector


def draw(demo: Demo, out: Path) -> None:
    """Draw the same defects as detectors of three views see them."""
    learnt = sorted(stable_shuffle(demo.run.purified.kept, 0, "views")[:LEARNT])
    rows = demo.noisy[demo.noisy["image_id"].isin(learnt)]
    defects = evenly(demo.tested(True).head(30), 2)
    inside = RegionOfInterest(RegionConfig(border=0.1))
    ways = {
        "squeeze": (EncoderConfig(), None),
        "tiles 2 × 2": (EncoderConfig(view="tiles", tiles=(2, 2)), None),
        "squeeze, border 10 %": (EncoderConfig(), inside),
    }
    tiles: list[list[Tile]] = [[] for _ in range(len(defects))]
    for name, (encoder, region) in ways.items():
        store = FeatureStore(demo.cache, encoder, rows, demo.root, region=region)
        detector = demo.settings.detector
        threshold, _ = calibrate(rows, store, encoder, detector, demo.settings.calibration, 0, region)
        assert threshold is not None
        model = replace(train(encoder, detector, store, learnt, 0), region=region)
        found = Predictor(model).predict(demo.paths(defects), threshold)
        for place, (path, one) in enumerate(zip(demo.paths(defects), found, strict=True)):
            tiles[place].append(tile(path, one, threshold, name))
    title = "Two defects under three views"
    contact_sheet([one for group in tiles for one in group], demo.work / "views.png", title, CALM)
    as_jpeg(demo.work / "views.png", out / "views.jpg")
