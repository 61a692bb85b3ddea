"""The sub-models' joint judgement of every training image: a score, and a map of its patches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llbnad.detectors.base import judge
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model, stored_maps
from llbnad.model.scores import Scores
from llbnad.purification.aggregate import aggregate, score_table
from llbnad.purification.partition import subset_numbers
from llbnad.purification.patches import Maps, out_of_fold_maps
from llbnad.scenario import ScenarioSettings

HELD_BYTES = 256 << 20  # of all sub-models at once


@dataclass(frozen=True)
class Consensus:
    """Scores and patch maps of all training images."""

    table: pd.DataFrame  # indexed by image id: sub_model_0 …, subset, score
    maps: Maps  # out-of-fold patch maps (h, w) by image id

    def aggregated(self, settings: ScenarioSettings) -> "Consensus":
        """Return the consensus of the same sub-models under the aggregation of `settings`."""
        score = aggregate(self.table, settings.aggregation, settings.partition)
        return replace(self, table=self.table.assign(score=score))


def consensus(
    scores: Sequence[Scores], maps: Sequence[Maps], subsets: pd.Series, settings: ScenarioSettings
) -> Consensus:
    """Return the consensus of T sub-models.

    Args:
        scores: scores of all training images, one per sub-model.
        maps: patch maps (h, w) by image id, one mapping per sub-model.
        subsets: subset of each training image, indexed by image id.
        settings: aggregation and partition.

    Raises:
        SubModelsError: a sub-model did not score exactly the training images, or lacks a map.
    """
    out_of_fold = out_of_fold_maps(maps, subsets, settings.partition)
    return Consensus(score_table(scores, subsets), out_of_fold).aggregated(settings)


def score_together(
    models: Sequence[Model], features: FeatureSource, subsets: pd.Series, settings: ScenarioSettings
) -> Consensus:
    """Score all training images with T sub-models and return their consensus.

    All sub-models score a batch before the next batch is read. Features are therefore read once, and detectors that
    share patch vectors compute them once (`base.patch_vectors`).

    Args:
        models: T sub-models, all in memory.
        features: features of the training images.
        subsets: subset of each training image, indexed by image id.
        settings: aggregation and partition.
    """
    image_ids = subsets.index.tolist()
    ids: list[str] = []  # in the order of the batches
    scores = np.empty((len(models), len(image_ids)), np.float32)
    # one allocation for all maps, as in `Model.score_with_maps`
    maps = np.empty((0, 0, 0), np.float16)  # (N, h, w)
    for batch in features.batches(image_ids, "score"):
        per_model = []
        new = slice(len(ids), len(ids) + len(batch.image_ids))
        for number, model in enumerate(models):
            found, judged = judge(model.detector, batch)
            scores[number, new] = judged.cpu().numpy()
            per_model.append(dict(zip(batch.image_ids, stored_maps(found, np.float16), strict=True)))
        averaged = out_of_fold_maps(per_model, subsets.loc[list(batch.image_ids)], settings.partition)
        if not ids:
            maps = np.empty((len(image_ids), *averaged[batch.image_ids[0]].shape), np.float16)
        maps[new] = [averaged[image_id] for image_id in batch.image_ids]
        ids.extend(batch.image_ids)
    table = score_table([Scores(tuple(ids), own) for own in scores], subsets)
    return Consensus(table, dict(sorted(zip(ids, maps, strict=True)))).aggregated(settings)


def score_in_turn(
    models: Iterable[Model], features: FeatureSource, subsets: pd.Series, settings: ScenarioSettings
) -> Consensus:
    """Return what `score_together` returns, with one sub-model at a time: the next one is made when one has scored.

    Features are read once per sub-model, and the maps of all sub-models stay in memory.

    Args:
        models: T sub-models, made when they are asked for.
        features: features of the training images.
        subsets: subset of each training image, indexed by image id.
        settings: aggregation and partition.
    """
    scores, maps = [], []
    for model in models:
        own_scores, own_maps = model.score_with_maps(features, subsets.index.tolist())
        scores.append(own_scores)
        maps.append(own_maps)
        del model  # before the next one is made
    return consensus(scores, maps, subsets, settings)


def better_in_turn(first: Model, features: FeatureSource, subsets: pd.Series) -> bool:
    """Return whether T sub-models like `first` are too large to hold at once, and larger than their maps.

    Args:
        first: one of the sub-models.
        features: features of the training images.
        subsets: subset of each training image, indexed by image id.
    """
    size = sum(tensor.nbytes for tensor in first.detector.tensors().values())
    if size * len(subset_numbers(subsets)) <= HELD_BYTES:
        return False
    batch = next(iter(features.batches(subsets.index[:1].tolist(), "look")))
    patches = judge(first.detector, batch)[0].numel()
    return size > patches * np.dtype(np.float16).itemsize * len(subsets)
