"""Keep the scores that the lower half of the scores explains.

The lower half of the scores is normal. Its own spread says how far normal scores reach; what lies further above is
rejected. Nothing is assumed of the defects: neither their share nor that their scores form a second mode. A clean set
of which odd views are a part loses some per cent of its images, and a set with one mode loses next to none.

The number of steps was chosen on other sets than those it is reported on (docs/results.md).
"""

from typing import Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy
from llbnad.policies.minority import is_minority
from llbnad.utils.lower_half import lower_half


class Tail(SelectionPolicy):
    """Keep the scores up to a number of standard deviations of the lower half."""

    policy: Literal["tail"] = "tail"
    steps: float = Field(3.25, gt=0)  # standard deviations of the lower half, above the 40 % quantile, still kept

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores at or below the cut. Scores whose lower half is constant are all kept."""
        body = lower_half(ordered)
        if body.spread <= 0:
            return len(ordered)
        count = int((ordered <= body.at(self.steps)).sum())
        # doubles of an image score near 0, and a cut may fall between them and all others
        return count + self.count(ordered[count:]) if is_minority(count, len(ordered)) else count

    def apart(self, ordered: np.ndarray) -> bool:
        """Return False: the cut lies in the tail of one group, and no patch of a kept image is suspicious for it."""
        return False
