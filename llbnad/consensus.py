"""What the sub-models say together about every training image: a score, and a map of its patches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from llbnad.aggregate import aggregate, score_table
from llbnad.config import ScenarioSettings
from llbnad.patches import Maps, out_of_fold_maps
from llbnad.scores import Scores


@dataclass(frozen=True)
class Consensus:
    """Scores and maps of all training images."""

    table: pd.DataFrame  # indexed by image id: sub_model_0 …, subset, score
    maps: Maps  # out-of-fold patch maps (h, w) by image id

    def aggregated(self, settings: ScenarioSettings) -> "Consensus":
        """The same sub-models under the aggregation of `settings`."""
        score = aggregate(self.table, settings.aggregation, settings.partition)
        return replace(self, table=self.table.assign(score=score))


def consensus(
    scores: Sequence[Scores], maps: Sequence[Maps], subsets: pd.Series, settings: ScenarioSettings
) -> Consensus:
    """Bring together what T sub-models say.

    Args:
        scores: of all training images, one a sub-model.
        maps: patch maps (h, w) by image id, one mapping a sub-model.
        subsets: subset of each training image, indexed by image id.
        settings: aggregation and partition.
    """
    out_of_fold = out_of_fold_maps(maps, subsets, settings.partition)
    return Consensus(score_table(scores, subsets), out_of_fold).aggregated(settings)
