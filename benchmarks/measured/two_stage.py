"""The whole two-stage run: `llbnad run` as a user starts it, and the naive loop that encodes for every pass."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured.data import ALPHA, solar_cells
from llbnad.config import CalibrationConfig, EncoderConfig, Runtime
from llbnad.detectors import DETECTORS
from llbnad.features.batch import Batch
from llbnad.features.store import FeatureStore
from llbnad.scenario import ScenarioSettings


def command(detector: str, settings: Mapping[str, Any], threads: int, out: Path) -> list[str]:
    """Return the command: T = 3, no comparators, no calibration folds."""
    options = [part for key, value in settings.items() for part in ("--set", f"detector.{key}={value}")]
    return ["run", "--noise-ratio", str(ALPHA), "--max-noise-ratio", "0.4", "--detector", detector, *options,
            "--no-comparators", "--set", "calibration.folds=0",
            "--threads", str(threads), "--out", str(out)]  # fmt: skip


def ours(detector: str, settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Measure from the start of the process to the last picture: imports, both stages, test and plots."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "llbnad.cli", *command(detector, settings, threads, out)], check=True)
        seconds = time.perf_counter() - started
        metrics = json.loads((out / "metrics.json").read_text())
    return {"seconds": seconds, "image_auroc": metrics["image_auroc"]}


class _Reencoding(FeatureStore):
    """Features without a cache. Every pass decodes and encodes."""

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        from llbnad.encoders import create_encoder
        from llbnad.features.batch import fresh_batch

        self._encoder = self._encoder or create_encoder(self.config, self.device)
        for start in range(0, len(image_ids), self.batch_size):
            chunk = tuple(image_ids[start : start + self.batch_size])
            images = np.stack([self._load(image_id) for image_id in chunk])
            yield fresh_batch(chunk, images, self._encoder, self.device)


def naive(detector: str, settings: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run the same method and detector without the feature cache, and with glibc's usual allocator."""
    import torch

    from llbnad.two_stage import run_two_stage

    torch.set_num_threads(threads)
    started = time.perf_counter()
    manifest, root = solar_cells()
    config = DETECTORS.get(detector).config_class(**settings)
    scenario = ScenarioSettings(detector=config, subsets=3, calibration=CalibrationConfig(folds=0), comparators=())
    store = _Reencoding(Path(), EncoderConfig(), manifest, root, "cpu", Runtime().batch_size)
    result = run_two_stage(manifest, store, root, scenario)
    return {"seconds": time.perf_counter() - started, "image_auroc": result.evaluation.metrics()["image_auroc"]}
