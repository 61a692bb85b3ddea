"""The score from which stage 1 calls an image suspicious: what the pictures of training images are anchored at."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from llbnad.config import Aggregation
from llbnad.purification.notes import apart_from
from llbnad.purification.purify import Purified

UNITLESS = ("robust_mean", "rank_mean")  # aggregations whose scores are in another unit than the maps
Kind = Literal["cut", "apart", "largest", "none apart"]
MEANINGS: dict[Kind, str] = {
    "cut": "cut of the policy",
    "apart": "score from which images stand apart",
    "largest": "largest score, as nothing is rejected",
    "none apart": "largest score, as none stands apart",
}


@dataclass(frozen=True)
class Limit:
    """The score above which a training image is suspicious, and what that score is."""

    value: float
    kind: Kind
    on_maps: float | None  # the same in the unit of the patch maps; None where there is no such limit
    share_ends: float | None = None  # largest score of a fixed share; None where the policy decides by evidence

    @property
    def meaning(self) -> str:
        """Name of the score, in a few words."""
        return MEANINGS[self.kind]

    @property
    def rejects(self) -> bool:
        """Whether the policy rejects what lies above it."""
        return self.kind == "cut"


def suspicious_from(scores: pd.Series, purified: Purified, aggregation: Aggregation = "oof_mean") -> Limit:
    """Return the policy's cut or, if it rejects nothing, the score from which images stand apart.

    A fixed share rejects nothing: where it ends says nothing of the images beyond.

    Args:
        scores: consensus scores of the training images.
        purified: the decision.
        aggregation: how the scores were made.
    """
    value: float = purified.cut
    kind: Kind = "cut"
    if not (purified.by_evidence and (scores > purified.cut).any()):
        apart, largest = apart_from(scores.to_numpy(np.float64)), float(scores.max())
        none: Kind = "largest" if purified.by_evidence else "none apart"
        value, kind = (apart, "apart") if apart < largest else (largest, none)
    share_ends = None if purified.by_evidence else purified.cut
    # with the largest score for a limit, maps of images that may well be defects would show nothing
    unknown = aggregation in UNITLESS or kind == "none apart"
    return Limit(value, kind, None if unknown else value, share_ends)
