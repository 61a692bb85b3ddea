"""anomalib's PatchCore and PaDiM on the same images, with the same weights, layers and input size.

The models, the pre-processing and the reading of images are anomalib's own, in the plainest loop, so that Lightning's
overhead is not counted. As many worker processes as there are threads decode the images.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.measured.data import paths, solar_cells
from llbnad.data.manifest import is_anomalous
from llbnad.evaluation.metrics import ranking

SIZE, BATCH = 224, 32  # anomalib's batch size
LAYERS = ["blocks.2", "blocks.4"]  # strides 8 and 16: LLBNAD's default
TIMED_TEST = 48  # test images that are timed for an extrapolation


class _Images(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from anomalib.data.utils import read_image

        image: torch.Tensor = read_image(self.files[index], as_tensor=True)
        return image


def _model(name: str, **options: Any) -> Any:
    from anomalib.models import image as models
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    from llbnad.encoders import timm_backbone

    timm_backbone.register()
    transform = Compose([Resize((SIZE, SIZE), antialias=True), Normalize(mean=[0.5] * 3, std=[0.5] * 3)])
    return getattr(models, name)(
        backbone="llbnad_efficientnet_lite2", layers=LAYERS, pre_processor=PreProcessor(transform),
        post_processor=False, evaluator=False, visualizer=False, **options,
    )  # fmt: skip


def _features(model: Any, files: list[Path], threads: int) -> float:
    """Return the seconds until all embeddings are in the model's store."""
    model.model.train()
    model.model.feature_extractor.eval()
    loader = DataLoader(_Images(files), BATCH, num_workers=threads)
    started = time.perf_counter()
    with torch.no_grad():
        for batch in loader:
            model.model(model.pre_processor(batch))
    return time.perf_counter() - started


def _predict(model: Any, files: list[Path], threads: int) -> tuple[float, np.ndarray]:
    """Return seconds and image scores (N,)."""
    model.model.eval()
    loader = DataLoader(_Images(files), BATCH, num_workers=threads)
    started = time.perf_counter()
    with torch.no_grad():
        scores = [model.model(model.pre_processor(batch)).pred_score.flatten() for batch in loader]
    return time.perf_counter() - started, torch.cat(scores).numpy()


def _auroc(scores: np.ndarray, manifest: Any) -> float:
    anomalous = is_anomalous(manifest[manifest["split"] == "test"]).astype(bool).to_numpy()
    found = ranking(scores[~anomalous], scores[anomalous])
    assert found is not None
    return found.auroc


def encoding(threads: int, images: int) -> dict[str, Any]:
    """Measure images per second from files to PatchCore's embeddings in memory."""
    torch.set_num_threads(threads)
    manifest, root = solar_cells()
    files = [root / path for path in sorted(manifest["path"])[:images]]
    model = _model("Patchcore")
    _features(model, files[:BATCH], threads)
    return {"rate": len(files) / _features(model, files, threads), "n": len(files)}


def patchcore(threads: int, steps: int) -> dict[str, Any]:
    """Measure single-stage PatchCore with coresets of 10 % and 1 %, extrapolated from the first `steps` greedy steps.

    All steps cost the same, because each step compares one patch with all patches. Prediction is timed on some test
    images, with a random memory of the coreset's size.
    """
    from anomalib.models.components import KCenterGreedy

    torch.set_num_threads(threads)
    manifest, root = solar_cells()
    model = _model("Patchcore")
    features = _features(model, paths(manifest, root, "train"), threads)
    patches = torch.vstack(model.model.embedding_store)
    model.model.embedding_store.clear()
    started = time.perf_counter()
    sampler = KCenterGreedy(embedding=patches, sampling_ratio=0.1)
    whole = sampler.coreset_size
    sampler.coreset_size = 2
    sampler.select_coreset_idxs()
    setup = time.perf_counter() - started  # the random projection
    sampler.coreset_size = steps + 2
    started = time.perf_counter()
    sampler.select_coreset_idxs()
    step = max(0.0, time.perf_counter() - started - setup) / steps
    test = paths(manifest, root, "test")
    result: dict[str, Any] = {"features_seconds": features, "step_seconds": step, "patches": len(patches)}
    for percent in (10, 1):
        size = whole * percent // 10
        model.model.memory_bank = patches[torch.randperm(len(patches))[:size]].clone()
        predict = _predict(model, test[:TIMED_TEST], threads)[0] / TIMED_TEST * len(test)
        result[f"seconds_{percent}"] = features + setup + size * step + predict
        result[f"coreset_{percent}"] = size
    return result


def patchcore_whole(threads: int, percent: int) -> dict[str, Any]:
    """Run single-stage PatchCore to its end. Return seconds and I-AUROC."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    manifest, root = solar_cells()
    model = _model("Patchcore")
    seconds = _features(model, paths(manifest, root, "train"), threads)
    started = time.perf_counter()
    model.model.subsample_embedding(percent / 100)
    seconds += time.perf_counter() - started
    predict, scores = _predict(model, paths(manifest, root, "test"), threads)
    return {"seconds": seconds + predict, "image_auroc": _auroc(scores, manifest)}


def padim(threads: int) -> dict[str, Any]:
    """Run single-stage PaDiM. Return seconds and I-AUROC."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    manifest, root = solar_cells()
    model = _model("Padim", n_features=100)
    seconds = _features(model, paths(manifest, root, "train"), threads)
    started = time.perf_counter()
    model.model.fit()
    seconds += time.perf_counter() - started
    predict, scores = _predict(model, paths(manifest, root, "test"), threads)
    return {"seconds": seconds + predict, "image_auroc": _auroc(scores, manifest)}


def latency(threads: int, memory: int, repeats: int) -> dict[str, Any]:
    """Measure the median seconds from one file to its score, with a random memory of `memory` patches."""
    from anomalib.data.utils import read_image

    torch.set_num_threads(threads)
    manifest, root = solar_cells()
    model = _model("Patchcore")
    _features(model, paths(manifest, root, "train")[:BATCH], threads)
    patches = torch.vstack(model.model.embedding_store)
    model.model.memory_bank = patches[torch.randperm(len(patches))[:memory]].clone()
    model.model.eval()
    seconds = []
    with torch.no_grad():
        for path in paths(manifest, root, "test")[:repeats]:
            started = time.perf_counter()
            float(model.model(model.pre_processor(read_image(path, as_tensor=True)[None])).pred_score)
            seconds.append(time.perf_counter() - started)
    return {"seconds": float(np.median(seconds)), "memory": len(model.model.memory_bank)}
