"""One cell of the purification table: stage 1 once, then stage 2 of every policy, tested on the same images.

`none`, `oracle` and `random` (as many images as `default` keeps) are in every cell. `misindexed` reproduces the mistake
of the authors' released code. That code permutes positions once too often, so that stage 2 trains on a random subset.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from llbnad.config import METHOD, Comparator
from llbnad.data.contaminate import anomalous_samples, contaminate
from llbnad.data.manifest import contamination, is_anomalous, training_images
from llbnad.evaluation.evaluate import evaluate
from llbnad.features.pooled import PooledFeatures
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.model import Model, derived_seed, train
from llbnad.model.scores import Scores
from llbnad.purification.comparators import train_methods, training_sets
from llbnad.purification.joint_scores import Consensus
from llbnad.purification.partition import assign_subsets
from llbnad.purification.patches import Maps
from llbnad.purification.rounds import run_sub_models, select
from llbnad.scenario import ScenarioSettings
from llbnad.study.grid import DEFAULT, Cell, Grid
from llbnad.utils.hashing import stable_shuffle

BASELINES: tuple[Comparator, ...] = ("none", "oracle", "random")


class CellResult(NamedTuple):
    """Results of one cell."""

    rows: pd.DataFrame  # one row per policy
    scores: pd.DataFrame  # one row per labelled test image, one column of scores per policy: see `study.bootstrap`


def run_cell(cell: Cell, grid: Grid, manifest: pd.DataFrame, image_root: Path, cache: Path) -> CellResult:
    """Compute one cell.

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
    features: FeatureSource = PooledFeatures(store, grid.pool) if grid.pool > 1 else store
    images = training_images(noisy)
    if cell.rival:
        config = grid.rivals[cell.detector]
        sets = {"none": tuple(sorted(images["image_id"]))}
        models = {"none": train(grid.encoder, config, features, sets["none"], derived_seed(cell.seed, "detector"))}
    else:
        sets, models = _policies(cell, grid, images, features)
    evaluation = evaluate(models, sets, noisy, features, image_root, cell.seed)
    found = evaluation.comparison
    samples = images["sample_id"].nunique()
    rows = pd.DataFrame(
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
    return CellResult(rows, _test_scores(cell, noisy, evaluation.scores))


def _test_scores(cell: Cell, noisy: pd.DataFrame, scores: Mapping[str, Scores]) -> pd.DataFrame:
    tested = noisy[(noisy["split"] == "test") & noisy["anomaly_class"].notna()]
    image_ids = tested["image_id"].tolist()
    return pd.DataFrame(
        {
            "dataset": cell.dataset,
            "detector": cell.detector,
            "alpha": cell.ratio,
            "seed": cell.seed,
            "image_id": image_ids,
            "sample_id": tested["sample_id"].tolist(),
            "anomalous": is_anomalous(tested).astype(bool).tolist(),
            **{policy: found.of(image_ids) for policy, found in scores.items()},
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
