"""Results of a test: one row per method, scores, and the decision of the final detector's threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from llbnad.config import METHOD
from llbnad.data.names import listed
from llbnad.evaluation.region_rates import REGION_METRICS
from llbnad.model.scores import Scores
from llbnad.model.threshold import FalsePositives, Threshold

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
DECISION = (
    "threshold",
    "fpr_at_threshold",
    "recall_at_threshold",
    "recall_of_rejected",
    "rejected_called_normal",
    "unsure_share",
    "pixel_threshold",
    "min_area",
    *REGION_METRICS,
)
UNTESTED = (
    "no image is set aside for testing, and an image that a detector learnt is no test of it: scores only, no metrics"
)
NAMED = 8  # images named in a line
COUNTS = ("n_train", "n_selected", "contamination_before", "contamination_after")


@dataclass(frozen=True)
class Evaluation:
    """Results of the test."""

    comparison: pd.DataFrame  # one row per method: method, seed, metrics, counts
    scores: Mapping[str, Scores]  # scores of the evaluated images, by method
    n_labelled: int  # evaluated images with a label
    n_tested: int  # those of them that are set aside for testing: the images that all metrics are of
    has_test: bool  # whether images are set aside for testing
    threshold: Threshold | None = None  # threshold of the final detector's image scores
    decision: Mapping[str, float | None] = field(default_factory=dict)  # threshold and its rates, see `DECISION`
    false_positives: FalsePositives | None = None  # of the threshold; None without it, or without a normal test image
    rejected_called_normal: Sequence[str] = ()  # names of rejected images, where none is set aside for testing

    def metrics(self) -> dict[str, float | int | None]:
        """Return metrics, counts and decision of the final detector. A metric that does not apply is None."""
        row = self.comparison[self.comparison["method"] == METHOD].iloc[0]
        values = {name: None if pd.isna(row[name]) else row[name].item() for name in IMAGE_METRICS + PIXEL_METRICS}
        counts = {name: None if pd.isna(row[name]) else float(row[name]) for name in COUNTS}
        counts |= {"n_train": int(row["n_train"]), "n_selected": int(row["n_selected"])}
        known = {"n_labelled": self.n_labelled, "n_tested": self.n_tested}
        return {**values, **counts, **known, **{name: self.decision.get(name) for name in DECISION}}

    def caveats(self) -> list[str]:
        """Return what to know where no image was set aside for testing, one line each; empty if there was a test."""
        if self.has_test:
            return []
        lines = [UNTESTED]
        found = self.decision.get("recall_of_rejected")
        if found is not None:
            lines.append(f"of the rejected images with a defect label {found:.0%} are called defects")
        if names := self.rejected_called_normal:
            missed = "a visible defect among them is missed"
            lines.append(f"of the images not kept {len(names)} are called normal ({listed(names, NAMED)}): {missed}")
        return lines

    def predictions(self, images: pd.DataFrame) -> pd.DataFrame:
        """Return one row per method and image: method, image_id, path, anomaly_class, score and label.

        The label is the final detector's decision: normal, unsure or defect. It is None for other methods, or without a
        threshold.

        Args:
            images: manifest rows of the evaluated images.
        """
        known = images[["image_id", "path", "anomaly_class"]]
        tables = [known.merge(s.series().reset_index(), on="image_id", validate="1:1") for s in self.scores.values()]
        rows = pd.concat(tables, keys=list(self.scores), names=["method"]).reset_index("method").reset_index(drop=True)
        label = pd.Series(None, index=rows.index, dtype="object")
        if self.threshold is not None:
            own = rows["method"] == METHOD
            label[own] = self.threshold.labels(rows["score"][own].to_numpy())
        return rows.assign(label=label)
