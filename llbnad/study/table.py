"""One cell of the purification table: stage 1 once, then stage 2 of every policy, tested on the same images.

`none`, `oracle` and `random` (as many images as `default` keeps) are in every cell. `misindexed` reproduces the mistake
of the authors' released code. That code permutes positions once too often, so that stage 2 trains on a random subset.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from pydantic import Field, ValidationError, model_validator

from llbnad.config import (
    METHOD,
    Aggregation,
    Comparator,
    Config,
    Dataset,
    DetectorConfig,
    InjectedNoise,
    Noise,
    NoNoise,
    Partition,
    RealIadDataset,
    Subsets,
)
from llbnad.data.contaminate import anomalous_samples, contaminate
from llbnad.data.manifest import contamination, training_images
from llbnad.evaluation.evaluate import evaluate
from llbnad.features.pooled import PooledFeatures
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.model import Model, derived_seed, train
from llbnad.purification.comparators import train_methods, training_sets
from llbnad.purification.consensus import Consensus
from llbnad.purification.partition import assign_subsets
from llbnad.purification.patches import Maps
from llbnad.purification.rounds import run_sub_models, select
from llbnad.scenario import AnyDetector, AnyEncoder, AnyPolicy, ScenarioSettings
from llbnad.study.embedded import EmbeddedFeatures
from llbnad.utils.hashing import stable_shuffle

DEFAULT = "default"  # the policy that `random` matches in size
BASELINES: tuple[Comparator, ...] = ("none", "oracle", "random")


class TablePolicy(Config):
    """A row of the table: how stage 1's scores become a training set."""

    selection: AnyPolicy
    patch_rejection: float = Field(0, ge=0)
    aggregation: Aggregation | None = None  # None: the aggregation of the grid
    partition: Partition = "disjoint"
    subsets: Subsets | None = None  # T; None: that of the grid
    rounds: int = Field(1, ge=1)
    sub_model_detector: AnyDetector | None = None  # None: the detector of the cell
    misindexed: bool = False  # train stage 2 on images at the chosen positions of a shuffled list, as the release does

    def settings(self, grid: "Grid", detector: DetectorConfig, seed: int) -> ScenarioSettings:
        """Return the settings of a scenario with this policy, for one cell of `grid`."""
        return ScenarioSettings(
            seed=seed,
            encoder=grid.encoder,
            detector=detector,
            sub_model_detector=self.sub_model_detector,
            subsets=self.subsets or grid.subsets,
            partition=self.partition,
            aggregation=self.aggregation or grid.aggregation,
            selection=self.selection,
            rounds=self.rounds,
            patch_rejection=self.patch_rejection,
        )


class Grid(Config):
    """The data sets, detectors, noise ratios, seeds and policies to compare (benchmarks/*.yaml)."""

    datasets: dict[str, Dataset]
    encoder: AnyEncoder
    pool: int = Field(1, ge=1)
    detectors: dict[str, AnyDetector]
    rivals: dict[str, AnyDetector] = Field(default_factory=dict)
    noise: InjectedNoise  # its ratio is replaced by each of `ratios`
    official: dict[float, str] = Field(default_factory=dict)  # Real-IAD's JSON set that is contaminated at this ratio
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    pixel_seeds: tuple[int, ...] | None = None  # seeds with pixel metrics, which take most of the time; None: all
    subsets: Subsets  # T
    aggregation: Aggregation
    policies: dict[str, TablePolicy]
    candidates: tuple[str, ...] = ()  # policies among which leave-one-set-out chooses (`llbnad.study.left_out`)

    def source(self, name: str, ratio: float) -> Dataset:
        """Return the data set `name`, in its official variant with α = `ratio` if there is one."""
        dataset = self.datasets[name]
        if ratio in self.official and isinstance(dataset, RealIadDataset):
            return dataset.model_copy(update={"variant": self.official[ratio]})
        return dataset

    def noise_at(self, ratio: float) -> Noise:
        """Return the noise that gives the result of `source` the contamination α = `ratio`."""
        return NoNoise() if ratio in self.official else self.noise.model_copy(update={"ratio": ratio})

    @model_validator(mode="after")
    def _official_needs_real_iad(self) -> "Grid":
        for name, dataset in self.datasets.items():
            if self.official and not isinstance(dataset, RealIadDataset):
                raise ValueError(f"official: data set {name} is {dataset.source}; only real_iad has such JSON sets")
        return self

    @model_validator(mode="after")
    def _named(self) -> "Grid":
        if DEFAULT not in self.policies:
            raise ValueError(
                f"policies: one must be called {DEFAULT}, as `random` keeps as many images; got {list(self.policies)}"
            )
        for name, policy in self.policies.items():
            for detector in self.detectors.values():
                try:
                    policy.settings(self, detector, 0)
                except ValidationError as error:
                    raise ValueError(f"policies.{name}: {error.errors()[0]['msg']}") from None
        if unknown := sorted(set(self.candidates) - set(self.policies)):
            raise ValueError(f"candidates: {unknown[0]} is none of the policies {list(self.policies)}")
        if both := sorted(set(self.detectors) & set(self.rivals)):
            raise ValueError(f"rivals: {both[0]} is the name of a detector as well")
        return self

    def cells(self) -> list["Cell"]:
        """Return all cells. Seeds are the outermost loop, so that a stopped run has finished whole seeds."""
        names = [(name, False) for name in self.detectors] + [(name, True) for name in self.rivals]
        return [
            Cell(dataset, ratio, detector, rival, seed)
            for seed in self.seeds
            for dataset in self.datasets
            for ratio in self.ratios
            for detector, rival in names
        ]


@dataclass(frozen=True)
class Cell:
    """One contaminated training set and one detector."""

    dataset: str
    ratio: float  # α
    detector: str
    rival: bool
    seed: int

    @property
    def name(self) -> str:
        """File name of the cell's results, without suffix."""
        return f"{self.dataset}_{self.detector}_{self.ratio:g}_{self.seed}"


def run_cell(cell: Cell, grid: Grid, manifest: pd.DataFrame, image_root: Path, cache: Path) -> pd.DataFrame:
    """Compute one cell and return one row per policy.

    Args:
        cell: a cell of the grid.
        grid: the settings.
        manifest: manifest of the data set that `Grid.source` returns.
        image_root: folder that the manifest's paths are relative to.
        cache: folder of the feature cache.
    """
    noise = grid.noise_at(cell.ratio)
    noisy = contaminate(manifest, noise, cell.seed)
    if grid.pixel_seeds is not None and cell.seed not in grid.pixel_seeds:
        noisy = noisy.assign(mask_path=None)
    store = FeatureStore(cache, grid.encoder, noisy, image_root)
    features: FeatureSource = EmbeddedFeatures(PooledFeatures(store, grid.pool) if grid.pool > 1 else store)
    images = training_images(noisy)
    if cell.rival:
        config = grid.rivals[cell.detector]
        sets = {"none": tuple(sorted(images["image_id"]))}
        models = {"none": train(grid.encoder, config, features, sets["none"], derived_seed(cell.seed, "detector"))}
    else:
        sets, models = _policies(cell, grid, images, features)
    found = evaluate(models, sets, noisy, features, image_root, cell.seed).comparison
    samples = images["sample_id"].nunique()
    return pd.DataFrame(
        {
            "dataset": cell.dataset,
            "detector": cell.detector,
            "encoder": grid.encoder.name,
            "alpha": cell.ratio,
            "policy": found["method"],
            "seed": cell.seed,
            "image_auroc": found["image_auroc"],
            "pixel_auroc": found["pixel_auroc"],
            "aupro": found["aupro"],
            "contamination_before": found["contamination_before"],
            "contamination_after": found["contamination_after"],
            "kept": found["n_selected"] / found["n_train"],
            "rejected_anomalous": [_rejected_anomalous(images, sets[method]) for method in found["method"]],
            "n_train": found["n_train"],
            "n_test": int((noisy["split"] == "test").sum()),
            "sample_contamination": len(anomalous_samples(images)) / samples,
            "rule": "official" if cell.ratio in grid.official else noise.protocol,
            "overlap": False,
            "subsets": grid.subsets,
            "grid": next(iter(features.batches(images["image_id"].tolist()[:1], "look"))).maps[0].shape[-1],
        }
    )


def _policies(
    cell: Cell, grid: Grid, images: pd.DataFrame, features: FeatureSource
) -> tuple[dict[str, tuple[str, ...]], dict[str, Model]]:
    config, seed = grid.detectors[cell.detector], cell.seed
    known: dict[tuple[str, frozenset[str]], Consensus] = {}  # policies with equal sub-models share their consensus
    everything = images["image_id"].tolist()

    sets: dict[str, tuple[str, ...]] = {}
    trusted: dict[str, Maps] = {}
    for name, policy in grid.policies.items():
        settings = policy.settings(grid, config, seed)
        subsets = assign_subsets(images, settings.subsets, seed)
        key = f"{settings.subsets} {settings.partition} {settings.stage_1_detector.model_dump_json()}"
        run = partial(_run, known, key, features, subsets, settings)
        found = select(run(everything, {}), settings, {}, run)
        trusted[name], kept = found.trusted, found.purified.kept
        sets[name] = _misindexed(found.consensus.table.index.tolist(), kept, seed) if policy.misindexed else kept
    sets |= {
        name: chosen for name, chosen in training_sets(images, sets[DEFAULT], BASELINES, seed).items() if name != METHOD
    }
    return sets, train_methods(sets, trusted, features, grid.encoder, config, seed)


def _run(
    known: dict[tuple[str, frozenset[str]], Consensus],
    key: str,
    features: FeatureSource,
    subsets: pd.Series,
    settings: ScenarioSettings,
    kept: Collection[str],
    trusted: Maps,
) -> Consensus:
    """Return the consensus of sub-models that learn from `kept`; from whole images, it is taken from `known`."""
    if trusted:
        return run_sub_models(features, subsets, settings, kept, trusted)
    at = (key, frozenset(kept))
    if at not in known:
        known[at] = run_sub_models(features, subsets, settings, kept if len(kept) < len(subsets) else None)
    return known[at].aggregated(settings)


def _misindexed(image_ids: Sequence[str], kept: Sequence[str], seed: int) -> tuple[str, ...]:
    """Return the images that the released code trains on in the place of `kept`, sorted.

    That code has scores in the order π[π[k]], but stage 2 looks images up in the order π[k].
    """
    order = stable_shuffle(image_ids, seed, "misindexed")
    position = {image_id: number for number, image_id in enumerate(image_ids)}
    again = [order[position[image_id]] for image_id in order]  # (N,) π∘π
    chosen = set(kept)
    return tuple(sorted(order[number] for number, image_id in enumerate(again) if image_id in chosen))


def _rejected_anomalous(images: pd.DataFrame, chosen: Sequence[str]) -> float | None:
    """Return the share of anomalous images among the rejected images, which is the precision of the rejection."""
    return contamination(images[~images["image_id"].isin(chosen)])
