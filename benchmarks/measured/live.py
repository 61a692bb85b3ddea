"""Live scoring, and one file at a time by each runtime: seconds from arrival to row, processor time, memory.

Each runtime has a process of its own, so that its memory counts: an exported graph needs no torch.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llbnad.utils.files import replacing

WARM = 4  # images before the measurement: the first calls allocate


def prepare_model(threads: int, folder: str, detector: str, images: int) -> dict[str, Any]:
    """Write a trained model with thresholds, its graphs, and `images` test images into `folder`."""
    from dataclasses import replace

    from benchmarks.measured.data import paths, solar_cells
    from benchmarks.measured.prediction import TRAIN
    from llbnad.config import CalibrationConfig, EncoderConfig, Runtime
    from llbnad.detectors import DETECTORS
    from llbnad.features.store import FeatureStore
    from llbnad.inference.export import export
    from llbnad.inference.exported import ExtraMissingError, Format
    from llbnad.model.calibrate import calibrate
    from llbnad.model.model import train
    from llbnad.utils.runtime import prepare

    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    place = Path(folder)
    store = FeatureStore(place / "features", EncoderConfig(), manifest, root)
    rows, config = manifest[manifest["split"] == "train"][:TRAIN], DETECTORS.get(detector).config_class()
    model = train(store.config, config, store, rows["image_id"].tolist(), 0)
    threshold, pixels = calibrate(rows, store, store.config, config, CalibrationConfig(folds=2), 0)
    model = replace(model, threshold=threshold, pixel_threshold=pixels)
    model.save(place / "model.safetensors")
    missing = []
    for format in Format:
        try:
            export(model, [format], place)
        except ExtraMissingError as error:
            missing.append(str(error))
    for number, path in enumerate(paths(manifest, root, "test")[:images]):
        shutil.copy(path, _images(place) / f"{number:04d}{path.suffix}")
    return {"missing": missing, "files": sorted(path.name for path in place.glob("*.*"))}


def score(threads: int, folder: str, file: str) -> dict[str, Any]:
    """Measure processor milliseconds per image, from a file to score, map, label and regions."""
    from llbnad.inference.exported import Exported, is_exported

    path = Path(folder) / file
    images = sorted(_images(Path(folder)).iterdir())
    if is_exported(path):
        predictor: Any = Exported.load(path, threads=threads)
        thresholds = predictor.threshold, predictor.pixel_threshold
    else:
        from llbnad.config import Runtime
        from llbnad.inference.predict import Predictor
        from llbnad.model.model import Model
        from llbnad.utils.runtime import prepare

        prepare(Runtime(device="cpu", threads=threads))
        model = Model.load(path)
        predictor, thresholds = Predictor(model), (model.threshold, model.pixel_threshold)
    for one in images[:WARM]:
        list(predictor.predict([one], *thresholds))
    started = time.process_time()
    for one in images[WARM:]:
        list(predictor.predict([one], *thresholds))
    spent = time.process_time() - started
    return {"ms": 1000 * spent / len(images[WARM:]), "n": len(images[WARM:]), "torch": "torch" in sys.modules}


def watch(threads: int, folder: str) -> dict[str, Any]:
    """Measure the seconds from an image's arrival, whole, to its row on disk, one image at a time; with its picture."""
    from llbnad.config import Runtime
    from llbnad.utils.runtime import prepare
    from orchestration.inspection.champion import Champion, model_finder
    from orchestration.inspection.inspector import Inspector, Settings
    from orchestration.inspection.ledger import Ledger
    from orchestration.inspection.watching import watch as watch_folder

    prepare(Runtime(device="cpu", threads=threads))
    with tempfile.TemporaryDirectory() as place:
        camera, stop = Path(place) / "camera", threading.Event()
        camera.mkdir()
        champion = Champion(model_finder(str(Path(folder) / "model.safetensors")))
        waiting = _arriving(sorted(_images(Path(folder)).iterdir()), camera)
        arrived: dict[str, float] = {}
        seconds: list[float] = []

        def next_image() -> None:
            name = next(waiting, None)
            if name is None:
                stop.set()
            else:
                arrived[name] = time.perf_counter()

        def told(row: Any) -> None:
            seconds.append(time.perf_counter() - arrived[row.path])
            next_image()

        with closing(Ledger(Path(place) / "out")) as ledger:
            inspector = Inspector(Settings(camera), ledger, champion)
            next_image()
            started = time.process_time()
            watch_folder(inspector, stop, told)
        spent = time.process_time() - started
    return {
        "median": float(np.median(seconds[WARM:])),
        "largest": max(seconds[WARM:]),
        "ms": 1000 * spent / len(seconds),
        "n": len(seconds) - WARM,
    }


def _arriving(images: list[Path], camera: Path) -> Iterator[str]:
    """Put one image after the other into a folder, each at once and as a new file, and yield its name."""
    for path in images:
        with replacing(camera / path.name) as temporary:
            temporary.write_bytes(path.read_bytes())
        yield path.name


def _images(folder: Path) -> Path:
    found = folder / "images"
    found.mkdir(exist_ok=True)
    return found
