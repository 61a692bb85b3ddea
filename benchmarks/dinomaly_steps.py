"""How many training steps dinomaly needs: loss and I-AUROC over steps, on one data set of a grid.

    python -m benchmarks.dinomaly_steps --steps 100 --steps 300 --steps 1000

Each row is a training of its own, from the first step: the learning rate falls towards the last one, so that a longer
training interrupted in the middle says nothing about a shorter one. The loss is the mean of 1 − cos over the training
images after training. Seconds are processor seconds, which depend little on what else runs.
"""

import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from llbnad.config import METHOD, Runtime
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import training_images
from llbnad.data.sources import read_source
from llbnad.detectors.dinomaly.detector import DinomalyConfig
from llbnad.evaluation.evaluate import evaluate
from llbnad.features.pooled import PooledFeatures
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.model import Model, derived_seed, train
from llbnad.purification.comparators import training_sets
from llbnad.study.grid import Grid
from llbnad.utils.files import write_csv
from llbnad.utils.runtime import prepare
from orchestration.commands.benchmark import load_grid
from orchestration.pipeline.paths import FEATURE_CACHE

GRID = Path("benchmarks") / "purification_dinomaly.yaml"


def main(
    dataset: Annotated[str, typer.Option(help="A data set of the grid.")] = "elpv_mono",
    ratio: Annotated[float, typer.Option(help="α, the contamination of the training images.")] = 0.2,
    steps: Annotated[list[int] | None, typer.Option(help="Training steps; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Draws images and weights.")] = 0,
    grid: Annotated[Path, typer.Option(help="The grid that says encoder, detector and noise.")] = GRID,
    out: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None,
) -> None:
    """Print loss, I-AUROC and processor seconds of each number of steps, with *none* and *oracle*."""
    target = str(prepare(Runtime(threads=1)))
    settings = load_grid(grid)
    if not isinstance(settings, Grid):
        raise typer.BadParameter(f"{grid} is the grid of a young line")
    scan, image_root = read_source(settings.datasets[dataset], Path(settings.datasets[dataset].root))
    noisy = contaminate(scan.manifest, settings.noise.model_copy(update={"ratio": ratio}), seed).assign(mask_path=None)
    images = training_images(noisy)
    everything = tuple(sorted(images["image_id"]))
    chosen = training_sets(images, everything, ("none", "oracle"), seed)
    rows = []
    store = FeatureStore(FEATURE_CACHE, settings.encoder, noisy, image_root, target)
    store.ensure(store.image_ids)
    features = PooledFeatures(store, settings.pool)
    for count in steps or (100, 300, 1000):
        config = DinomalyConfig(**{**settings.detectors["dinomaly"].model_dump(), "steps": count})
        for name in ("none", "oracle"):
            start = time.process_time()
            model = train(settings.encoder, config, features, chosen[name], derived_seed(seed, "detector"))
            seconds = time.process_time() - start
            found = evaluate({METHOD: model}, {METHOD: chosen[name]}, noisy, features, image_root, seed)
            rows.append(
                {"data set": dataset, "alpha": ratio, "trained on": name, "steps": count,
                 "loss": _loss(model, features, chosen[name]),
                 "image_auroc": found.comparison["image_auroc"].iloc[0], "train_cpu_s": seconds}
            )  # fmt: skip
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1, float_format="%.4f"))
            if out is not None:
                write_csv(pd.DataFrame(rows), out)  # as it goes, so that a stopped command leaves what it measured


def _loss(model: Model, features: FeatureSource, image_ids: tuple[str, ...]) -> float:
    """Return the mean of 1 − cos over all patches of the images."""
    total = 0.0
    for batch in features.batches(list(image_ids), "loss"):
        total += float(model.detector.patch_maps(batch).mean(dim=(1, 2)).sum())
    return total / len(image_ids)


if __name__ == "__main__":
    typer.run(main)
