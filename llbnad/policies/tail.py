"""Keep the scores that the lower half of the scores explains.

The lower half of the scores is normal. Its own spread says how far the scores of this many normal images reach; what
lies further above is rejected. Nothing is assumed of the defects: neither their share nor that their scores form a
second mode. A clean set of which odd views are a part loses some per cent of its images, and a set with one mode loses
next to none.

The cut is lower where images are few: 2.5 spreads above the lower half's middle for 40 images, 3.3 for 400, 3.5 for
1,000. There a kept defect weighs more, and fewer normal images are found that far out.
docs/results.md says on which sets the default was chosen.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from llbnad.config import SelectionPolicy
from llbnad.policies.minority import is_minority
from llbnad.utils.lower_half import lower_half, reach


class Tail(SelectionPolicy):
    """Keep the scores up to the place above which few of as many normal scores are expected."""

    policy: Literal["tail"] = "tail"
    lost: float = Field(0.5, gt=0)  # images expected above the cut if all are normal, whatever their number

    def count(self, ordered: np.ndarray) -> int:
        """Return the number of scores at or below the cut. Scores whose lower half is constant are all kept."""
        body = lower_half(ordered)
        if body.spread <= 0:
            return len(ordered)
        count = int((ordered <= body.at(reach(len(ordered), self.lost))).sum())
        # doubles of an image score near 0, and a cut may fall between them and all others
        return count + self.count(ordered[count:]) if is_minority(count, len(ordered)) else count

    def apart(self, ordered: np.ndarray) -> bool:
        """Return False: the cut lies in the tail of one group, and no patch of a kept image is suspicious for it."""
        return False
