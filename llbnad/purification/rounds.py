"""Stage 1 from the sub-models' training to the verdict, once or in rounds.

One round is the paper's (arXiv 2508.07441). In a further one, sub-models that learnt only from what was kept score all
images again, rejected ones as well, which may so come back. It ends after `settings.rounds`, or when a set is kept that
was kept before.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llbnad.data.manifest import contamination
from llbnad.features.source import FeatureSource
from llbnad.purification.consensus import Consensus, score_together
from llbnad.purification.partition import training_masks
from llbnad.purification.patches import Maps, TrustedFeatures, trusted_patches
from llbnad.purification.purify import Purified, purify
from llbnad.purification.sub_models import train_sub_model
from llbnad.purification.verdicts import override, verdict_summary
from llbnad.scenario import ScenarioSettings

FEWEST = 2  # images a sub-model of a further round learns from: of one, no detector learns what varies


@dataclass(frozen=True)
class Selection:
    """The last round's verdict."""

    consensus: Consensus
    by_policy: Purified
    purified: Purified  # with people's verdicts
    trusted: Maps  # patches to learn from, where not all are (`llbnad.purification.patches`)
    history: pd.DataFrame  # a row a round: round, kept, changed (images that came or went since the round before)

    def summary(
        self, train: pd.DataFrame, verdicts: Mapping[str, str], everything: pd.DataFrame
    ) -> dict[str, float | int | None]:
        """Count what was kept, how contaminated it is where labels say so, and what people's verdicts did.

        Args:
            train: manifest rows of the training images, without those that people excluded.
            verdicts: people's, by image id.
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
    num_subsets: int,
    settings: ScenarioSettings,
    kept: Collection[str] | None = None,
    trusted: Maps | None = None,
) -> Consensus:
    """Train all sub-models, on `kept` and its trusted patches if given, and let them score every training image."""
    source = TrustedFeatures(features, trusted) if trusted else features
    models = [train_sub_model(number, source, subsets, num_subsets, settings, kept)[0] for number in range(num_subsets)]
    return score_together(models, features, subsets, settings)


def select(
    first: Consensus,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str],
    again: Callable[[Collection[str], Maps], Consensus],
) -> Selection:
    """Purify, and purify again in as many rounds as are asked for.

    Args:
        first: of sub-models that learnt from everything.
        settings: selection, patch rejection, rounds, partition.
        verdicts: people's, by image id.
        again: the consensus of sub-models that learn from the images and trusted patches given.
    """
    current, history, seen = first, [], [frozenset(first.table.index)]
    for number in range(1, settings.rounds + 1):
        by_policy = purify(current.table["score"], settings.selection)
        purified = override(by_policy, verdicts)
        kept = frozenset(purified.kept)
        masks = trusted_patches(current.maps, by_policy.kept, settings.patch_rejection)
        # people's word on one image moves no other image's patches; what they take back has no mask: learnt from whole
        trusted = {one: mask for one, mask in masks.items() if one in kept}
        history.append({"round": number, "kept": len(kept), "changed": len(kept ^ seen[-1])})
        starved = not _every_sub_model_learns(current.table["subset"], kept, settings)
        if number == settings.rounds or kept in seen or starved:
            break
        seen.append(kept)
        current = again(purified.kept, trusted)
    return Selection(current, by_policy, purified, trusted, pd.DataFrame(history))


def _every_sub_model_learns(subsets: pd.Series, kept: Collection[str], settings: ScenarioSettings) -> bool:
    masks = training_masks(subsets, int(subsets.max()) + 1, settings.partition)
    return bool(np.all(masks[subsets.index.isin(kept)].sum(axis=0) >= FEWEST))
