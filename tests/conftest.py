"""Real images for tests: solar cells of the installed package, and magnetic tiles if they are beside the clone."""

import gc
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from llbnad.config import DetectorConfig, ElpvDataset, EncoderConfig, Runtime
from llbnad.data.sources import elpv
from llbnad.data.sources.records import Listing
from llbnad.data.sources.scan_files import scan
from llbnad.detectors.dinomaly.config import DinomalyConfig
from llbnad.detectors.padim import PadimConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.encoders import hub
from llbnad.features.store import FeatureStore
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model, train
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.regions.find import region_level
from llbnad.utils.runtime import prepare
from tests import warm

REPOSITORY = Path(__file__).resolve().parents[1]
MAGNETIC_TILE = REPOSITORY.parent / "shared" / "data" / "magnetic_tile"


os.environ.pop("DAGSTER_HOME", None)  # tests leave the user's alone, and two processes must not both set up a new one


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until all is imported: see below
    works, count = hasattr(config, "workerinput"), config.getoption("numprocesses", None)
    if not works:  # pytest-xdist's own processes inherit what is set here
        config.add_cleanup(warm.prepare())
    if works or not count:
        sys.executable = warm.COLD
        multiprocessing.set_executable(warm.COLD)
        prepare(Runtime(device="cpu"))  # as every command of ours does
    else:  # they start warm, and this process only hands out tests
        config.option.tx = [f"popen//python={warm.programs()}/python"] * count


def pytest_collection_finish() -> None:
    """Collect garbage seldom and without what was imported: a whole collection takes half a second, torch's export
    brought on dozens."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


# Files that take longest, in the order in which the processes of pytest-xdist begin them: what is left for the end
# is short. The first makes the workspaces that others wait for; those after it need none of them. test_ingest forks
# hundreds of times, which is quick while its process is small.
LONGEST = (
    "pipeline/test_both_doors", "pipeline/test_production_line", "pipeline/test_young_line", "pipeline/test_ingest",
    "unit/test_export", "unit/test_quality", "unit/test_magnetic_tile", "pipeline/test_slices",
    "pipeline/test_tracking", "pipeline/test_registry", "pipeline/test_interruption", "pipeline/test_new_scenario",
    "pipeline/test_settings", "unit/test_cli", "pipeline/test_staleness", "pipeline/test_live",
    "pipeline/test_serving", "pipeline/test_audit", "pipeline/test_workplace", "pipeline/test_benchmark",
    "unit/test_plugins", "unit/test_memory", "browser/test_review_page",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(f"{item.path.parent.name}/{item.path.stem}", len(LONGEST)))


def shared(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a file or folder of the test session; the first process of pytest-xdist that wants it builds it.

    Nobody may change it afterwards: another process may be reading it.
    """
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, done = base / "shared" / name, base / "shared" / f"{name}.done"
    path.parent.mkdir(exist_ok=True)
    with FileLock(path.with_name(f"{name}.lock")):
        assert done.exists() or not path.exists(), f"{name} could not be built: see the first failure"
        if not done.exists():
            build(path)
            done.touch()
    return path


def python(*arguments: object, folder: Path = REPOSITORY, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `python …` as a process in `folder`, with `extra` in its environment; it starts warm."""
    environment = {**os.environ, "PATH": f"{warm.programs()}{os.pathsep}{os.environ['PATH']}", **extra}
    return subprocess.run(["python", *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True)


def llbnad(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command `llbnad`, as `python` above."""
    return python("-m", "llbnad.cli", *arguments, **options)


@pytest.fixture(scope="session")
def magnetic_tile() -> Path:
    if not MAGNETIC_TILE.is_dir():
        pytest.skip(f"the magnetic-tile data is not at {MAGNETIC_TILE}; it is not part of the repository")
    return MAGNETIC_TILE


def copy_cells(folder: Path, good: int, bad: int) -> None:
    """Write so many normal and defective solar cells to good/ and bad/ below `folder`."""
    listing = elpv.records(ElpvDataset())
    for name, label, count in (("good", "OK", good), ("bad", "defect", bad)):
        (folder / name).mkdir(parents=True)
        for record in [record for record in listing.records if record.anomaly_class == label][:count]:
            shutil.copy(listing.root / record.path, folder / name)


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with 60 normal and 24 defective solar cells in good/ and bad/."""
    return shared(tmp_path_factory, "cells", lambda folder: copy_cells(folder, 60, 24))


@pytest.fixture(scope="session")
def few_cells() -> tuple[pd.DataFrame, Path]:
    """Return the manifest of 20 solar cells, 14 of them normal, and the root of its paths."""
    listing = elpv.records(ElpvDataset())
    normal = [record for record in listing.records if record.anomaly_class == "OK"][:14]
    defective = [record for record in listing.records if record.anomaly_class != "OK"][:6]
    return scan(Listing(listing.root, normal + defective)).manifest, listing.root


@pytest.fixture(scope="session")
def model_files(few_cells: tuple[pd.DataFrame, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return model files by detector, trained on normal solar cells at 64 px."""
    manifest, root = few_cells
    encoder = EncoderConfig(input_size=64, layers=(2,))  # few layers: torch's export is slow
    dinomaly = DinomalyConfig(steps=20, batch_size=4, width=32, depth=2)
    configs: list[DetectorConfig] = [PatchcoreConfig(memory_size=256), PadimConfig(dimensions=8), dinomaly]

    def train_all(folder: Path) -> None:
        store = FeatureStore(folder / "features", encoder, manifest, root)
        normal = manifest["image_id"][manifest["anomaly_class"] == "OK"].tolist()
        for config in configs:
            train(encoder, config, store, normal, seed=0).save(folder / f"{config.name}.safetensors")

    folder = shared(tmp_path_factory, "models", train_all)
    return {config.name: folder / f"{config.name}.safetensors" for config in configs}


TINY = "vit_tiny_patch16_224.augreg_in21k"


@pytest.fixture(scope="session")
def vit_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files that `hf download` would write for the ViT `TINY`, with made weights."""

    def make(folder: Path) -> None:
        import timm
        import torch
        from safetensors.torch import save_file

        (folder / TINY).mkdir(parents=True)
        torch.manual_seed(0)
        network: Any = timm.create_model(TINY, pretrained=False, num_classes=3)
        save_file(network.state_dict(), folder / TINY / hub.WEIGHTS)
        training = {"pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 1.0]}}
        (folder / TINY / hub.SETTINGS).write_text(json.dumps(training))

    return shared(tmp_path_factory, "vit", make)


@pytest.fixture
def tiny_vit(vit_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EncoderConfig]:
    """Return the settings of a small ViT whose weights are made up."""
    monkeypatch.setenv(hub.FOLDER_VARIABLE, str(vit_weights))
    hub.files.cache_clear()
    yield EncoderConfig(name=TINY, input_size=64)
    hub.files.cache_clear()


@pytest.fixture(scope="session")
def calibrated(
    model_files: dict[str, Path], few_cells: tuple[pd.DataFrame, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a model file of PatchCore with both thresholds (10 % false positives) from all 20 cells."""
    manifest, root = few_cells

    def calibrate(path: Path) -> None:
        model = Model.load(model_files["patchcore"])
        found = list(Predictor(model).predict([root / one for one in manifest["path"]]))
        scores = np.array([one.score for one in found], np.float32)
        levels = np.array([region_level(one.patch_map, 1 / one.patch_map.size) for one in found], np.float32)
        pixels = PixelThreshold(threshold_at(levels, 0.1, unsure=False), 1 / found[0].patch_map.size)
        replace(model, threshold=threshold_at(scores, 0.1), pixel_threshold=pixels).save(path)

    return shared(tmp_path_factory, "calibrated.safetensors", calibrate)


def save_image(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a random RGB image. Distinct seeds give distinct bytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def made_manifest(normal: int, anomalous: int, views: int = 1) -> pd.DataFrame:
    """Return a labelled manifest without files. Each sample has `views` images; a defect shows only in the first."""
    rows = [
        {
            "image_id": f"{number:063x}{view}",
            "path": f"{number}_{view}.png",
            "mask_path": None,
            "category": "made",
            "sample_id": f"sample {number}",
            "view": f"C{view + 1}",
            "anomaly_class": "AK" if number >= normal and view == 0 else "OK",
            "split": None,
            "width": 8,
            "height": 8,
        }
        for number in range(normal + anomalous)
        for view in range(views)
    ]
    return pd.DataFrame(rows)
