"""The selection: which training images the consensus calls normal, by a policy of `llbnad.policies`.

Images are ordered by score, and ties are broken by image id. The selected *set* therefore depends on no order of rows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from llbnad.config import SelectionPolicy
from llbnad.policies import count_kept

LEFT_OUT = "left out by the fixed share"


@dataclass(frozen=True)
class Purified:
    """The decision of a policy: which training images are kept and which are rejected."""

    kept: tuple[str, ...]  # image ids, sorted
    rejected: tuple[str, ...]  # image ids, sorted
    cut: float  # the largest score the policy kept
    apart: bool = True  # whether the policy sees the rejected images as a group of their own
    by_evidence: bool = True  # whether the scores decide how many images are rejected; False: a fixed share is kept

    def fate(self, decided: str, the: str = "") -> str:
        """Return what the policy did with an image, in words: one wording for tables, pages and pictures.

        What a fixed share leaves out is no suspect, so it is never called rejected.

        Args:
            decided: `kept` or `rejected`.
            the: written before "policy", such as "the ".
        """
        if self.by_evidence:
            return f"{decided} by {the}policy"
        return "in the fixed share" if decided == "kept" else LEFT_OUT


def purify(scores: pd.Series, selection: SelectionPolicy) -> Purified:
    """Split training images into kept and rejected images.

    Args:
        scores: (N,) consensus scores indexed by image id, higher is more anomalous.
        selection: the policy with its settings.

    Raises:
        ConfigError: the policy keeps no image or more images than there are.
    """
    ordered = scores.sort_index().sort_values(kind="stable")  # by score, ties by image id
    values = ordered.to_numpy(np.float64)
    count = count_kept(selection, values)
    kept, rejected = ordered.index[:count], ordered.index[count:]
    return Purified(tuple(sorted(kept)), tuple(sorted(rejected)), float(values[count - 1]), selection.apart(values),
                    selection.by_evidence)  # fmt: skip
