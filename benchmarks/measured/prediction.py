"""Prediction with a trained model: one file at a time, and batches of pixels by torch, ONNX Runtime and OpenVINO.

Runtimes take turns, so that a busy moment of the machine affects all of them, and the best round counts. Batches are
measured without decoding and resizing.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured.data import paths, solar_cells
from llbnad.config import EncoderConfig, Runtime, View
from llbnad.data.images import load_square, load_whole
from llbnad.detectors import DETECTORS
from llbnad.evaluation.metrics import ranking
from llbnad.features.store import FeatureStore
from llbnad.inference.export import check_installed, export
from llbnad.inference.exported import ExtraMissingError, Format, Session, load_exported
from llbnad.inference.graph.precision import Precision
from llbnad.inference.parity import parity
from llbnad.inference.predict import Predictor, predictor_session
from llbnad.model.model import Model, train
from llbnad.utils.runtime import prepare

TRAIN, TIMED, BATCH = 48, 16, 16  # images


def installed() -> list[Format]:
    """Return the formats whose packages are installed."""
    found = []
    for one in Format:
        try:
            check_installed(one)
        except ExtraMissingError:
            continue
        found.append(one)
    return found


def _parts(format: Format, file: Path) -> list[Path]:
    """Return the files of an exported graph; OpenVINO's weights are beside it."""
    return [file, file.with_suffix(".bin")] if format is Format.openvino else [file]


def _trained(folder: Path, detector: str, encoder: EncoderConfig | None = None, **settings: Any) -> Model:
    manifest, root = solar_cells()
    store = FeatureStore(folder / "features", encoder or EncoderConfig(), manifest, root)
    ids = manifest["image_id"][manifest["split"] == "train"].tolist()[:TRAIN]
    config = DETECTORS.get(detector).config_class(**settings)
    return train(store.config, config, store, ids, seed=0)


def latency(threads: int, memory: int, repeats: int) -> dict[str, Any]:
    """Measure the median seconds from one file to score and map."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(_trained(Path(folder), "patchcore", memory_size=memory))
    test = paths(manifest, root, "test")
    list(predictor.predict(test[-2:]))
    seconds = []
    for path in test[:repeats]:
        started = time.perf_counter()
        list(predictor.predict([path]))
        seconds.append(time.perf_counter() - started)
    return {"seconds": float(np.median(seconds))}


def throughput(threads: int, detector: str, rounds: int) -> dict[str, Any]:
    """Measure images per second of each installed runtime, and the distance of its scores from torch's."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    images = np.stack([load_square(path, 224) for path in paths(manifest, root, "test")[-TIMED:]])
    with tempfile.TemporaryDirectory() as folder:
        model = _trained(Path(folder), detector)
        sessions: dict[str, Session] = {"torch": predictor_session(model)}
        missing = []
        for wanted in Format:
            try:
                [path] = export(model, [wanted], Path(folder)).files.values()
                sessions[wanted.value] = load_exported(path, threads)
            except ExtraMissingError as error:
                missing.append(str(error))
        best = dict.fromkeys(sessions, 0.0)
        for run in sessions.values():
            run(images[:BATCH])  # the first call allocates
        for _ in range(rounds):
            for name, run in sessions.items():
                started = time.perf_counter()
                for start in range(0, len(images), BATCH):
                    run(images[start : start + BATCH])
                best[name] = max(best[name], len(images) / (time.perf_counter() - started))
        differences = {name: parity(sessions["torch"], run, list(images)).score for name, run in sessions.items()}
    return {"rates": best, "differences": differences, "missing": missing}


def precisions(threads: int, detector: str, images: int, view: View = "squeeze") -> dict[str, Any]:
    """Measure I-AUROC on test images, processor milliseconds per image and megabytes of each format and precision."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    test = manifest[manifest["split"] == "test"]
    normal = test["anomaly_class"] == "OK"
    groups = [[root / path for path in test["path"][rows]][: images // 2] for rows in (normal, ~normal)]
    learnt = [np.asarray(load_whole(path)) for path in paths(manifest, root, "train")[:TRAIN]]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = _trained(Path(folder), detector, EncoderConfig(view=view))
        for precision in Precision:
            for format, file in export(model, installed(), Path(folder), precision, learnt).files.items():
                run = load_exported(file, threads)
                run(learnt[0][None])  # the first call allocates
                started = time.process_time()
                scores = [np.array([run(np.asarray(load_whole(path))[None])[0][0] for path in few]) for few in groups]
                seconds = time.process_time() - started
                order = ranking(*scores)
                found[f"{format.value} {precision.value}"] = {
                    "image_auroc": None if order is None else order.auroc,
                    "ms": 1000 * seconds / sum(map(len, groups)),
                    "mb": sum(one.stat().st_size for one in _parts(format, file)) / 1e6,
                }
    return {"files": found}
