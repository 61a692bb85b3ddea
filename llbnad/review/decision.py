"""The last run's decisions on the training images: those of the policy, and what people's verdicts changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from llbnad.config import Aggregation
from llbnad.evaluation.heat_scale import HeatScale, heat_scale
from llbnad.purification.limit import Limit, suspicious_from
from llbnad.purification.purify import LEFT_OUT, Purified
from llbnad.purification.score_list import policy_decisions

OUTCOMES = {"normal": "kept", "defect": "rejected", "exclude": "excluded"}  # of a verdict


@dataclass(frozen=True)
class Decision:
    """The decisions on all training images."""

    limit: Limit
    by_policy: Mapping[str, str]  # kept or rejected, by image id
    status: Mapping[str, str]  # kept, rejected or excluded, after the verdicts of the last run, by image id
    fates: Mapping[str, str]  # what the policy did, in words, by `kept` and `rejected`

    def scale(self, heat: Mapping[str, np.ndarray]) -> HeatScale:
        """Return the colour scale of the images' patch maps."""
        return heat_scale(self.limit.on_maps, [heat[one] for one in sorted(heat)], self.limit.meaning)

    def lines(self, verdicts: Mapping[str, str]) -> list[str]:
        """Return what the cut did or why there is none, what verdicts changed, and what waits for the next run.

        Args:
            verdicts: the verdicts of the review file, by image id.
        """
        counts, total = Counter(self.by_policy.values()), len(self.by_policy)
        at, away = f"{self.limit.value:.4g}", "rejected" if self.limit.share_ends is None else "left out"
        standing = f"Images stand apart from {at} on." if self.limit.kind == "apart" else "None stands apart."
        if self.limit.share_ends is not None:
            ends = f"{self.limit.share_ends:.4g}"
            cut = f"The policy keeps a fixed share: {counts['kept']} of {total} images, those up to {ends}. "
            if others := counts["rejected"]:
                cut += f"The {others} others are {LEFT_OUT}, which says nothing of defects. "
            cut += standing
        elif self.limit.rejects:
            cut = f"The policy rejected {counts['rejected']} of {total} images, those above its cut at {at}."
        else:
            cut = f"There is no cut: the policy sees no second group of scores and kept all {total} images. {standing}"
        moved = Counter(
            (self.by_policy[one], now) for one, now in self.status.items() if now != self.by_policy.get(one, now)
        )
        changed = (
            "The last run changed this by verdicts: "
            f"{moved['kept', 'rejected']} kept by the policy are rejected, "
            f"{moved['rejected', 'kept']} {away} by it are kept, "
            f"{moved['kept', 'excluded'] + moved['rejected', 'excluded']} are excluded."
            if moved
            else "In the last run no verdict changed this."
        )
        own = {one: verdict for one, verdict in verdicts.items() if one in self.status}
        waiting = sum(OUTCOMES[verdict] != self.status[one] for one, verdict in own.items())
        elsewhere = len(verdicts) - len(own)
        said = [f"{waiting} of {len(own)} verdicts in the review file wait for the next run."] if waiting else []
        said += [f"{elsewhere} verdicts are on images that are not among these."] if elsewhere else []
        return [cut, changed, *said]


def decided(scores: pd.Series, purified: Purified, aggregation: Aggregation = "oof_mean") -> Decision:
    """Return the decisions on all training images.

    Args:
        scores: consensus scores, by image id.
        purified: the decision of the last run. Images in neither of its parts are those that people excluded.
        aggregation: how the scores were made.
    """
    status = dict.fromkeys(purified.kept, "kept") | dict.fromkeys(purified.rejected, "rejected")
    by_policy = policy_decisions(scores, purified)
    limit = suspicious_from(scores, purified, aggregation)
    fates = {decision: purified.fate(decision) for decision in ("kept", "rejected")}
    return Decision(limit, by_policy, {one: status.get(one, "excluded") for one in by_policy}, fates)
