"""Two detectors tested on the same images: is the difference of their I-AUROC more than chance, and what is it worth?

The comparators of the later test say what a difference is worth: training on everything (*none*), on true normals only
(*oracle*). Intervals are those of `llbnad.study.bootstrap`, over the test images. Both detectors are of one training
each, so that another seed may change more than an interval says.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from llbnad.config import METHOD
from llbnad.data.manifest import NORMAL
from llbnad.evaluation.figures import FALSE_ALARM_COLOUR, METHOD_COLOURS, figure
from llbnad.evaluation.metrics import ranking
from llbnad.study.bootstrap import BETTER, LEVEL, NOISE, WORSE, differences

EARLIER = "earlier"


@dataclass(frozen=True)
class TwoTests:
    """I-AUROC of an earlier detector and of the present one, on the same test images."""

    earlier: float
    now: float
    low: float  # 95 % interval of now - earlier
    high: float
    significance: str  # see `llbnad.study.bootstrap.differences`
    images: int
    above: pd.DataFrame  # I-AUROC of the present detector minus that of each other one: see `differences`
    rates: str  # false positives and recall of both, each at its own threshold; empty without thresholds

    def describe(self) -> str:
        """Say in one sentence what changed, and whether it is more than chance."""
        said = f"I-AUROC {self.earlier:.4f} → {self.now:.4f} on the same {self.images} test images"
        interval = f"{self.now - self.earlier:+.4f}, from {self.low:+.4f} to {self.high:+.4f} at {LEVEL:.0%} confidence"
        verdict = "no more than the chance of these test images"
        if self.significance != NOISE:
            chance = "the chance of these test images (of one seed: another changes it too)"
            verdict = f"{self.significance} beyond {chance}"
        return f"{said} ({interval}): {verdict}{'; ' + self.rates if self.rates else ''}"


def two_tests(
    earlier: pd.DataFrame,
    now: pd.DataFrame,
    samples: pd.Series,
    thresholds: tuple[float | None, float | None] = (None, None),
) -> TwoTests | None:
    """Compare the final detectors of two tests.

    Args:
        earlier: predictions of the earlier test, as `Evaluation.predictions` returns them.
        now: those of the present one.
        samples: sample of each image, by image id: views of one sample are one observation.
        thresholds: those of the earlier and of the present detector; None if it has none.

    Returns:
        the comparison, or None if they have not both normal and anomalous labelled images in common.
    """
    before = earlier[earlier["method"] == METHOD].set_index("image_id")["score"].rename(EARLIER)
    scores = now.pivot(index="image_id", columns="method", values="score").join(before, how="inner")
    labels = now.drop_duplicates("image_id").set_index("image_id")["anomaly_class"].dropna()
    scores = scores.join(labels, how="inner").sort_index()
    anomalous = scores.pop("anomaly_class") != NORMAL
    found = {name: ranking(scores[name][~anomalous].to_numpy(), scores[name][anomalous].to_numpy()) for name in scores}
    first, second = found[EARLIER], found[METHOD]
    if first is None or second is None:
        return None
    named = scores.assign(test="", seed=0, anomalous=anomalous, sample_id=samples.reindex(scores.index)).reset_index()
    above = _reversed(differences(named, ["test"], METHOD))
    (change,) = above[above["method"] == EARLIER].to_dict("records")
    return TwoTests(
        first.auroc, second.auroc, change["difference_low"], change["difference_high"], change["significance"],
        len(scores), above, _rates(scores, thresholds, anomalous),
    )  # fmt: skip


def _reversed(table: pd.DataFrame) -> pd.DataFrame:
    """Return what `base` has above each method, from a table of `differences`, which has the opposite."""
    return table.assign(
        difference=0 - table["difference"],  # not -0.0
        difference_low=0 - table["difference_high"],
        difference_high=0 - table["difference_low"],
        significance=table["significance"].replace({BETTER: WORSE, WORSE: BETTER}),
    )


def _rates(scores: pd.DataFrame, thresholds: tuple[float | None, float | None], anomalous: pd.Series) -> str:
    """Say which share of normal and of anomalous images each detector scores above its threshold."""
    shares = []
    for name, threshold in zip((EARLIER, METHOD), thresholds, strict=True):
        if threshold is None:
            return ""
        above = scores[name] > threshold
        shares.append((above[~anomalous].mean(), above[anomalous].mean()))
    (alarms_before, found_before), (alarms, found) = shares
    return (
        "at their thresholds, as counted, without a test for chance: "
        f"false positives {alarms_before:.1%} → {alarms:.1%}, recall {found_before:.1%} → {found:.1%}"
    )


def draw_two_tests(tests: TwoTests, names: dict[str, str], path: Path, title: str) -> None:
    """Draw what the present detector has above each other one, with its interval, as PNG.

    Args:
        tests: the comparison.
        names: what the picture calls the other detectors; those without a name are left out.
        path: PNG file.
        title: title of the picture.
    """
    rows = tests.above.set_index("method")
    shown = [name for name in names if name in rows.index]
    colours = {**METHOD_COLOURS, EARLIER: FALSE_ALARM_COLOUR}  # the remaining colour of the palette
    with figure(path, (8, 1.6 + 0.45 * len(shown))) as (axes,):
        for place, name in enumerate(reversed(shown)):
            row = rows.loc[name]
            reach = [[row["difference"] - row["difference_low"]], [row["difference_high"] - row["difference"]]]
            axes.errorbar([row["difference"]], [place], xerr=reach, fmt="o", color=colours[name], capsize=4)
        axes.axvline(0, color="#999999", linewidth=1)
        axes.set_yticks(range(len(shown)), [names[name] for name in reversed(shown)])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlabel(
            f"I-AUROC of this run ({tests.now:.4f}) minus that of …, {LEVEL:.0%} intervals over test images", fontsize=9
        )
        axes.set_title(title, loc="left")
