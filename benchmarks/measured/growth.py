"""Growth of time and memory with the number of images and of sub-models, and the needs of 20,000 images."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.measured.data import augmented
from llbnad.config import CalibrationConfig, EncoderConfig, Runtime
from llbnad.data.manifest import read_manifest, write_manifest
from llbnad.detectors import DETECTORS, create_detector
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.features.batch import Batch
from llbnad.features.store import FeatureStore
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model, train
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.purification.rounds import run_sub_models, select
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import run_two_stage
from llbnad.utils.runtime import prepare

MEMORY = 1024  # patches


def encode(folder: str, images: int, threads: int) -> dict[str, Any]:
    """Make `images` images in `folder` and encode them into a cache there. Return the seconds of encoding."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = augmented(Path(folder) / "images", images)
    write_manifest(manifest, Path(folder) / "manifest.parquet")
    store = FeatureStore(Path(folder) / "cache", EncoderConfig(), manifest, root)
    started = time.perf_counter()
    store.ensure(store.image_ids)
    return {"seconds": time.perf_counter() - started}


def two_stage(folder: str, images: int, subsets: int, threads: int) -> dict[str, Any]:
    """Run both stages and the test on the first `images` images. All are cached; a tenth is the test set."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest = read_manifest(Path(folder) / "manifest.parquet").sort_values("path").head(images)
    manifest = manifest.reset_index(drop=True)
    manifest.loc[manifest.index % 10 == 0, "split"] = "test"
    root = Path(folder) / "images"
    settings = ScenarioSettings(
        detector=PatchcoreConfig(memory_size=MEMORY),
        subsets=subsets,
        calibration=CalibrationConfig(folds=0),
        comparators=(),
    )
    store = FeatureStore(Path(folder) / "cache", EncoderConfig(), manifest, root)
    started = time.perf_counter()
    run_two_stage(manifest, store, root, settings)
    return {"seconds": time.perf_counter() - started}


class _Rows:
    """Synthetic features (32, 14, 14) per image, made from the image's number."""

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        for start in range(0, len(image_ids), 16):
            chunk = tuple(image_ids[start : start + 16])
            generator = torch.Generator().manual_seed(int(chunk[0]))
            yield Batch(chunk, (torch.randn(len(chunk), 32, 14, 14, generator=generator),))


def stage(detector: str, images: int, settings: dict[str, Any], memory_limit: int, threads: int) -> dict[str, Any]:
    """Train on synthetic features and score all images. Keep the score table and the maps, as stage sub_model does.

    Returns:
        the memory in MB that the stage added to the process's peak, without its imports.
    """
    prepare(Runtime(device="cpu", threads=threads, memory_limit=memory_limit))
    ids = [f"{number:06d}" for number in range(images)]
    before = _peak_mb()
    started = time.perf_counter()
    config = DETECTORS.get(detector).config_class(**settings)
    model = train(EncoderConfig(), config, _Rows(), ids, 0)
    trained = _peak_mb()
    scores, maps = model.score_with_maps(_Rows(), ids)
    seconds = time.perf_counter() - started
    kept = sum(one.nbytes for one in maps.values()) / 2**20
    assert np.isfinite(scores.values).all()
    return {"mb": _peak_mb() - before, "training_mb": trained - before, "maps_mb": kept, "seconds": seconds}


def stage_1(images: int, threads: int) -> dict[str, Any]:
    """Run three sub-models of patchcore, their consensus and the selection with its patches, on synthetic features.

    Returns:
        the memory that this added to the process's peak, and the size of the tables that stay: scores, maps and trusted
        patches.
    """
    prepare(Runtime(device="cpu", threads=threads))
    settings = ScenarioSettings(
        detector=PatchcoreConfig(memory_size=MEMORY), selection={"policy": "fraction", "keep": 0.8}
    )
    ids = [f"{number:06d}" for number in range(images)]
    subsets = pd.Series([number % 3 for number in range(images)], index=ids, name="subset")
    before = _peak_mb()
    started = time.perf_counter()
    found = run_sub_models(_Rows(), subsets, settings)
    selection = select(found, settings, {}, lambda kept, trusted: found)
    seconds = time.perf_counter() - started
    kept = found.table.memory_usage(deep=True).sum()
    kept += sum(one.nbytes for maps in (found.maps, selection.trusted) for one in maps.values())
    return {"mb": _peak_mb() - before, "kept_mb": kept / 2**20, "seconds": seconds}


def large_images(folder: str, images: int, tiles: tuple[int, int], threads: int) -> dict[str, Any]:
    """Score images of 16 megapixels in tiles, each with a region as large as the image, which needs the most memory.

    Returns:
        the memory in MB that this added to the process's peak, and the number of pixels of an image.
    """
    from PIL import Image

    prepare(Runtime(device="cpu", threads=threads))
    width, height = 4928, 3264
    paths = []
    for number in range(images):
        small = np.random.default_rng(number).integers(60, 180, (height // 32, width // 32, 3), np.uint8)
        paths.append(Path(folder) / f"{number}.jpg")
        Image.fromarray(small).resize((width, height)).save(paths[-1])
    detector = create_detector(PatchcoreConfig())
    detector.restore({"memory": torch.zeros((1, 168))})  # far from every patch
    everywhere = PixelThreshold(threshold_at(np.zeros(9), 0.1, "none", unsure=False), 0.0)
    view = EncoderConfig(input_size=64, view="tiles", tiles=tuple(tiles))
    predictor = Predictor(Model(view, PatchcoreConfig(), detector))
    before = _peak_mb()
    for found in predictor.predict(paths, None, everywhere):
        assert found.regions is not None and [one.area for one in found.regions] == [width * height]
    return {"mb": _peak_mb() - before, "pixels": width * height}


def _peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
