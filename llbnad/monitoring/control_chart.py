"""A p-chart: whether the share of images called `defect`, or `unsure`, in an hour is more than chance explains.

Each hour is one point, and each version of the model has a chart of its own. Its first hours, as many as hold BASELINE
images, are the baseline: their share, with half an image of each kind added (Jeffreys), is the centre for all hours
after them. The hours of the baseline itself are compared with what the model promises: the rate of its threshold for
`defect`, the share of its calibration scores within the interval for `unsure`. Each row says which of both it was.

The limits are those of 3 sigma, 0.135 % on each side, as quantiles of the binomial distribution. The usual limits,
centre ± 3 √(p (1 - p) / n), are its approximation for many images; with 20 images an hour and 1 % defects they would
alarm in one hour of sixty. An hour is `high` or `low` if its count lies outside. Images are taken as independent.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.evaluation.figures import ANOMALOUS_COLOUR, CUT_COLOUR, NORMAL_COLOUR, figure
from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL, Threshold

BASELINE = 100  # images
TAIL = 0.00135  # probability beyond 3 sigma, on each side
CHARTED = (DEFECT_LABEL, UNSURE_LABEL)
SHOWN_HOURS = 24 * 14  # on the picture


def promised_shares(threshold: Threshold | None) -> dict[str, float]:
    """Return the shares of images that a model promises to call defect and unsure; nothing without a threshold."""
    if threshold is None:
        return {}
    unsure = float(threshold.is_unsure(threshold.scores).mean()) if threshold.unsure else 0.0
    return {DEFECT_LABEL: threshold.promised_fpr, UNSURE_LABEL: unsure}


def control_chart(images: pd.DataFrame, promised: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Count the images of each hour and compare their shares with the limits.

    Args:
        images: one row per scored image: hour (text that sorts by time), model, label.
        promised: by model, the shares to compare the first hours with (`promised_shares`); a model may be missing.

    Returns:
        one row per hour, model and charted label: hour, model, label, images, count, share, centre, low, high (shares;
        missing without a centre), basis (where the centre is from), outside (`high`, `low` or empty).
    """
    rows: list[dict[str, object]] = []
    for model in images["model"].unique():
        own = images[images["model"] == model]
        hours = own.groupby("hour")["label"]
        sizes = hours.size().sort_index()
        before = sizes.cumsum() - sizes  # images before each hour
        learning = before < BASELINE
        complete = int(sizes.sum()) >= BASELINE
        for label in CHARTED:
            counts = own["label"].eq(label).groupby(own["hour"]).sum().reindex(sizes.index)
            base_n, base = int(sizes[learning].sum()), int(counts[learning].sum())
            learnt = (base + 0.5) / (base_n + 1)
            told = f"first {int(learning.sum())} hours, {base_n} images"
            for hour in sizes.index:
                known = complete and not learning[hour]
                centre = learnt if known else promised.get(str(model), {}).get(label)
                basis = told if known else "the model's promise" if centre is not None else ""
                point = _point(int(counts[hour]), int(sizes[hour]), centre)
                rows.append({"hour": hour, "model": model, "label": label, **point, "basis": basis})
    columns = ["hour", "model", "label", "images", "count", "share", "centre", "low", "high", "basis", "outside"]
    return pd.DataFrame(rows, columns=columns).sort_values(["hour", "model", "label"], ignore_index=True)


def _point(count: int, n: int, centre: float | None) -> dict[str, object]:
    from scipy import stats

    low: float | None = None
    high: float | None = None
    outside = ""
    if centre is not None:
        least, most = (int(stats.binom.ppf(q, n, centre)) for q in (TAIL, 1 - TAIL))
        low, high = least / n, most / n
        outside = "high" if count > most else "low" if count < least else ""
    share = count / n
    return {
        "images": n, "count": count, "share": share, "centre": centre, "low": low, "high": high, "outside": outside
    }  # fmt: skip


def draw_chart(chart: pd.DataFrame, path: Path, title: str) -> None:
    """Draw a chart as PNG: for each label the share per hour with its limits, and marks where it is outside.

    Args:
        chart: result of `control_chart`, with at least one row; the newest hours are shown.
        path: PNG file.
        title: title of the picture.
    """
    shown = chart[chart["hour"].isin(sorted(chart["hour"].unique())[-SHOWN_HOURS:])]
    points = {label: shown[shown["label"] == label].reset_index(drop=True) for label in CHARTED}
    width = max(6.5, min(20.0, 2 + 0.25 * len(points[CHARTED[0]])))
    with figure(path, (width, 5.5), 1, len(CHARTED)) as grid:
        for axes, (label, rows) in zip(grid, points.items(), strict=True):
            where = np.arange(len(rows))
            limits = rows[["low", "high", "centre"]].astype(float) * 100
            axes.fill_between(
                where, limits["low"], limits["high"], step="mid", color="#dddddd", label="limits (3 sigma)"
            )
            axes.step(
                where, limits["centre"], where="mid", color=CUT_COLOUR, linestyle="--", linewidth=1, label="centre"
            )
            axes.plot(where, rows["share"] * 100, color=NORMAL_COLOUR, marker="o", markersize=4, label="share")
            outside = rows.index[rows["outside"] != ""].to_numpy()
            axes.scatter(outside, rows["share"].to_numpy()[outside] * 100, 80, color=ANOMALOUS_COLOUR, marker="X",
                         zorder=3, label="outside")  # fmt: skip
            axes.set_ylabel(f"{label}, % of images")
            every = max(1, len(rows) // 24)
            axes.set_xticks(where[::every], [])
        hours = [str(hour) for hour in points[CHARTED[0]]["hour"]]
        grid[-1].set_xticks(range(0, len(hours), every), hours[::every], rotation=45, ha="right", fontsize=7)
        grid[-1].set_xlabel("hour")
        grid[0].set_title(title, loc="left")
        handles, texts = grid[0].get_legend_handles_labels()
        grid[0].figure.legend(handles, texts, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
