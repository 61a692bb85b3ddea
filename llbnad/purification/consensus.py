"""The sub-models' joint judgement of every training image: a score, and a map of its patches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llbnad.detectors.base import judge
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model, stored_maps
from llbnad.model.scores import Scores
from llbnad.purification.aggregate import aggregate, score_table
from llbnad.purification.patches import Maps, out_of_fold_maps
from llbnad.scenario import ScenarioSettings


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
