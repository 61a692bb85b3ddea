"""Stage 1 of LLBNAD (arXiv 2508.07441): sub-models on parts of the training set score all of it; a policy selects.

`settings.rounds` goes further than the paper: what was kept trains the sub-models anew, and they score all images
again, rejected ones as well, which may so come back. It ends when a set is kept that was kept before.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llbnad.aggregate import aggregate, score_table
from llbnad.config import ScenarioSettings
from llbnad.detectors.base import FeatureSource
from llbnad.model import Model, derived_seed, train
from llbnad.partition import training_masks
from llbnad.patches import Maps, TrustedFeatures, out_of_fold_maps, trusted_patches
from llbnad.purify import Purified, purify
from llbnad.scores import Scores
from llbnad.verdicts import override


@dataclass(frozen=True)
class Consensus:
    """What the sub-models say together about every training image."""

    table: pd.DataFrame  # indexed by image id: sub_model_0 …, subset, score
    maps: Maps  # out-of-fold patch maps (h, w) by image id

    def aggregated(self, settings: ScenarioSettings) -> "Consensus":
        """The same sub-models' scores under the aggregation of `settings`."""
        score = aggregate(self.table, settings.aggregation, settings.partition)
        return replace(self, table=self.table.assign(score=score))


@dataclass(frozen=True)
class Selection:
    """The last round's verdict."""

    consensus: Consensus
    by_policy: Purified
    purified: Purified  # with people's verdicts
    trusted: Maps  # patches to learn from, where not all are (`llbnad.patches`)
    history: pd.DataFrame  # a row a round: round, kept, changed (images that came or went since the round before)


def train_sub_model(
    number: int,
    features: FeatureSource,
    subsets: pd.Series,
    num_subsets: int,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
) -> tuple[Model, list[str]]:
    """Sub-model `number`, and the images it learnt from.

    Args:
        number: 0 … T-1.
        features: of these images.
        subsets: subset of each training image, indexed by image id.
        num_subsets: T.
        settings: encoder, detector, partition, seed.
        kept: learn only from these; None: from all.
    """
    own = subsets.index[training_masks(subsets, num_subsets, settings.partition)[:, number]].tolist()
    if kept is not None:
        own = sorted(set(own).intersection(kept))
    seed = derived_seed(settings.seed, f"sub_model {number}")
    return train(settings.encoder, settings.stage_1_detector, features, own, seed), own


def consensus(
    scores: Sequence[Scores], maps: Sequence[Maps], subsets: pd.Series, settings: ScenarioSettings
) -> Consensus:
    """Bring together the scores and patch maps that T sub-models gave of all training images."""
    maps_of_all = out_of_fold_maps(maps, subsets, settings.partition)
    return Consensus(score_table(scores, subsets), maps_of_all).aggregated(settings)


def run_sub_models(
    features: FeatureSource,
    subsets: pd.Series,
    num_subsets: int,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
    trusted: Maps | None = None,
) -> Consensus:
    """Train all sub-models, on `kept` and its trusted patches if given, and let them score every training image."""
    source = TrustedFeatures(features, trusted) if trusted else features
    image_ids = subsets.index.tolist()
    scores, maps = [], []
    for number in range(num_subsets):
        model, _ = train_sub_model(number, source, subsets, num_subsets, settings, kept)
        found, heat = model.score_with_maps(features, image_ids)
        scores.append(found)
        maps.append(heat)
    return consensus(scores, maps, subsets, settings)


def select(
    first: Consensus,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str],
    again: Callable[[Collection[str], Maps], Consensus],
) -> Selection:
    """Purify, and in further rounds purify what sub-models say that learnt only from what was kept.

    Args:
        first: of the sub-models that learnt from everything.
        settings: selection, patch rejection, rounds, partition.
        verdicts: people's, by image id.
        again: the consensus of sub-models that learn from the images and trusted patches given.
    """
    current, history, seen = first, [], [frozenset(first.table.index)]
    for number in range(1, settings.rounds + 1):
        by_policy = purify(current.table["score"], settings.selection)
        purified = override(by_policy, verdicts)
        trusted = trusted_patches(current.maps, purified.kept, settings.patch_rejection)
        kept = frozenset(purified.kept)
        history.append({"round": number, "kept": len(kept), "changed": len(kept ^ seen[-1])})
        starved = not _every_sub_model_learns(current.table["subset"], kept, settings)
        if number == settings.rounds or kept in seen or starved:
            break
        seen.append(kept)
        current = again(purified.kept, trusted)
    return Selection(current, by_policy, purified, trusted, pd.DataFrame(history))


def _every_sub_model_learns(subsets: pd.Series, kept: Collection[str], settings: ScenarioSettings) -> bool:
    masks = training_masks(subsets, int(subsets.max()) + 1, settings.partition)
    return bool(np.all(masks[subsets.index.isin(kept)].any(axis=0)))
