"""The detector stage on solar cells: processor seconds of its work, and of asking whether neighbours are alike."""

import time
from pathlib import Path
from typing import Any

from benchmarks.measured.data import solar_cells
from llbnad.config import EncoderConfig, Runtime
from llbnad.data.manifest import training_images
from llbnad.detectors import DETECTORS
from llbnad.features.store import FeatureStore
from llbnad.model import calibrate
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import select_images, train_final
from llbnad.utils.runtime import prepare
from orchestration.pipeline.paths import FEATURE_CACHE


def bursts(detector: str, settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Train the final detector, its comparators and its calibration folds, all features cached, and time both.

    Returns:
        processor seconds of the stage's work without imports (`stage_seconds`), and of `look_for_bursts` in it.
    """
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    store = FeatureStore(FEATURE_CACHE, EncoderConfig(), manifest, Path(root))
    scenario = ScenarioSettings(detector=DETECTORS.get(detector).config_class(**settings))
    images = training_images(manifest)
    selection = select_images(images, store, scenario)
    look, seconds, found = calibrate.look_for_bursts, [], []

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        found.append(look(*arguments, **named))
        seconds.append(time.process_time() - started)
        return found[-1]

    calibrate.look_for_bursts = timed
    started = time.process_time()
    train_final(images, selection, store, scenario)
    total = time.process_time() - started
    if found == [] or found[0] is None:
        raise RuntimeError("the detector stage did not ask whether images are alike")
    return {"seconds": sum(seconds), "stage_seconds": total, "kept": len(selection.purified.kept)}
