"""Stage 1 from the training of the sub-models to the selection, in one or several rounds.

The paper (arXiv 2508.07441) has one round. In every further round, sub-models that learnt only from the kept images
score all images again, so that rejected images may come back. Stage 1 ends after `settings.rounds` rounds. It ends
earlier if a round keeps a set that was kept before, or leaves a sub-model with too few images. A policy may be more
cautious in all rounds but the last (`SelectionPolicy.before_last`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.config import SelectionPolicy
from llbnad.data.canvas import Frame
from llbnad.data.manifest import contamination
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.purification.joint_scores import Consensus, better_in_turn, score_in_turn, score_together
from llbnad.purification.partition import subset_numbers, training_masks
from llbnad.purification.patches import Maps, TrustedFeatures, trusted_patches
from llbnad.purification.purify import Purified, purify
from llbnad.purification.sub_models import train_sub_model
from llbnad.purification.verdicts import override, verdict_summary
from llbnad.scenario import ScenarioSettings

FEWEST_IMAGES = 2  # images per sub-model in a further round: one image cannot show what varies


@dataclass(frozen=True)
class Selection:
    """The selection of the last round."""

    consensus: Consensus
    by_policy: Purified  # the policy's decision
    purified: Purified  # the policy's decision, overridden by people's verdicts
    trusted: Maps  # masks of the patches to learn from; empty if all are trusted (`llbnad.purification.patches`)
    history: pd.DataFrame  # one row per round: round, kept, changed (images that came or went since the round before)

    def summary(
        self, train: pd.DataFrame, verdicts: Mapping[str, str], everything: pd.DataFrame
    ) -> dict[str, float | int | None]:
        """Return counts of kept images, contamination (None if a label is missing) and effects of people's verdicts.

        Args:
            train: manifest rows of the training images, without the images that people excluded.
            verdicts: people's verdicts by image id.
            everything: manifest of all images of the scenario.
        """
        kept, rejected = (train[train["image_id"].isin(ids)] for ids in (self.purified.kept, self.purified.rejected))
        trusted = [mask.mean() for mask in self.trusted.values()]
        return {
            "n_train": len(train),
            "n_selected": len(kept),
            "kept_share": len(kept) / len(train),
            "cut": self.purified.cut,
            "contamination_before": contamination(train),
            "contamination_after": contamination(kept),
            "contamination_rejected": contamination(rejected),
            "patches_rejected": 1 - float(np.mean(trusted)) if trusted else 0.0,
            **verdict_summary(verdicts, everything, self.by_policy, self.purified),
        }


def run_sub_models(
    features: FeatureSource,
    subsets: pd.Series,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
    trusted: Maps | None = None,
) -> Consensus:
    """Train all sub-models and let them score every training image.

    Sub-models of many patches, as with tiles, are trained and score one after the other: memory holds one of them.

    Args:
        features: features of the training images.
        subsets: subset 0 … T-1 of each training image, indexed by image id.
        settings: settings of the scenario.
        kept: ids of the images to learn from; None means all.
        trusted: masks of the patches to learn from, by image id; None means all patches.
    """
    source = TrustedFeatures(features, trusted) if trusted else features
    numbers = subset_numbers(subsets)
    models = (train_sub_model(number, source, subsets, settings, kept)[0] for number in numbers)
    first = [next(models)]
    if better_in_turn(first[0], features, subsets):
        return score_in_turn(chain(_emptied(first), models), features, subsets, settings)
    return score_together([*first, *models], features, subsets, settings)


def _emptied(models: list[Model]) -> Iterator[Model]:
    """Yield the models and forget each."""
    while models:
        yield models.pop(0)


def select(
    first: Consensus,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str],
    again: Callable[[Collection[str], Maps], Consensus],
    frames: Mapping[str, Frame] = MappingProxyType({}),
) -> Selection:
    """Select training images, in as many rounds as `settings` asks for.

    Args:
        first: consensus of sub-models that learnt from all training images.
        settings: selection, patch rejection, rounds and partition.
        verdicts: people's verdicts by image id.
        again: trains sub-models on the given images and trusted patches, and returns their consensus.
        frames: frames of the images whose patches do not all count, by image id.

    Raises:
        DataError: the verdicts leave no image to train on.
    """
    current, history, seen = first, [], [frozenset(first.table.index)]
    for number in range(1, settings.rounds):
        _, purified, trusted = _decide(current, settings.selection.before_last, settings, verdicts, frames)
        kept = frozenset(purified.kept)
        if kept in seen or not _every_sub_model_learns(current.table["subset"], kept, settings):
            break
        history.append({"round": number, "kept": len(kept), "changed": len(kept ^ seen[-1])})
        seen.append(kept)
        current = again(purified.kept, trusted)
    by_policy, purified, trusted = _decide(current, settings.selection, settings, verdicts, frames)
    changed = len(frozenset(purified.kept) ^ seen[-1])
    history.append({"round": len(history) + 1, "kept": len(purified.kept), "changed": changed})
    return Selection(current, by_policy, purified, trusted, pd.DataFrame(history))


def _decide(
    current: Consensus,
    policy: SelectionPolicy,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str],
    frames: Mapping[str, Frame],
) -> tuple[Purified, Purified, dict[str, np.ndarray]]:
    """Return the policy's decision, the decision after people's verdicts, and the patches to learn from."""
    by_policy = purify(current.table["score"], policy)
    purified = override(by_policy, verdicts)
    masks = trusted_patches(current.maps, by_policy.kept, settings.patch_rejection if by_policy.apart else 0, frames)
    # Masks follow from the policy's choice, so that a verdict on one image changes no other image's patches. An image
    # that the policy rejected and people called normal has no mask: it is learnt from as a whole.
    kept = set(purified.kept)
    return by_policy, purified, {one: mask for one, mask in masks.items() if one in kept}


def _every_sub_model_learns(subsets: pd.Series, kept: Collection[str], settings: ScenarioSettings) -> bool:
    masks = training_masks(subsets, len(subset_numbers(subsets)), settings.partition)
    return bool(np.all(masks[subsets.index.isin(kept)].sum(axis=0) >= FEWEST_IMAGES))
