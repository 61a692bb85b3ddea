"""Summaries of the young-line study: means over draws, and over the data sets on which the oracle sees something."""

from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.evaluation.figures import figure
from llbnad.study.table_summary import COLOURS as POLICY_COLOURS
from llbnad.study.table_summary import mean_with_interval

SEES = 0.3  # recall of the oracle above which a data set counts: where it is blind, nobody can see
BLIND, SIGHTED = 0.1, 0.4  # recall of a blind run, and of the oracle beside which it counts as one
MEASURED = (
    "kept", "contamination_after", "agreement", "image_auroc", "recall", "fpr", "unsure", "unsure_anomalous",
    "unsure_normal", "surely_found", "oracle_image_auroc", "oracle_recall", "oracle_fpr", "oracle_unsure",
)  # fmt: skip
NONE = "none_image_auroc"  # in the rows if `none` is among the comparators
COLOURS = ("#0072B2", "#E69F00", "#D55E00", "#CC79A7")  # one per α


def per_set(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over draws, one row per data set, detector, N and α.

    `by_bound` is the share of thresholds that the bound decided, `draws` the number of draws.
    """
    keys = ["dataset", "detector", "n", "alpha"]
    rows = rows.assign(by_bound=rows["decided_by"] == "bound")
    measured = [*MEASURED, "by_bound", *([NONE] if NONE in rows else [])]
    table = rows.groupby(keys, sort=True)[measured].mean()
    return table.assign(draws=rows.groupby(keys).size()).reset_index()


def over_sets(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over the data sets on which the oracle's mean recall is at least `SEES`.

    Returns:
        one row per detector, N and α: sets (their number), recall, oracle_recall, recall_ratio (of the two), fpr,
        oracle_fpr, unsure, kept, blind (share of the runs beside an oracle of at least `SIGHTED` whose recall is below
        `BLIND`; None if there is no such oracle).
    """
    keys = ["detector", "n", "alpha"]
    found = []
    for values, group in rows.groupby(keys, sort=True):
        means = group.groupby("dataset")[["recall", "oracle_recall", "fpr", "oracle_fpr", "unsure", "kept"]].mean()
        means = means[means["oracle_recall"] >= SEES]
        seen = group[group["dataset"].isin(means.index)]
        sighted = seen[seen["oracle_recall"] >= SIGHTED]
        mean = means.mean()
        found.append(
            {
                **dict(zip(keys, values, strict=True)),
                "sets": len(means),
                "recall": mean["recall"],
                "oracle_recall": mean["oracle_recall"],
                "recall_ratio": mean["recall"] / mean["oracle_recall"],
                "fpr": mean["fpr"],
                "oracle_fpr": mean["oracle_fpr"],
                "unsure": mean["unsure"],
                "kept": mean["kept"],
                "blind": float((sighted["recall"] < BLIND).mean()) if len(sighted) else None,
            }
        )
    return pd.DataFrame(found)


def ranking_over_sets(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the k-shot curve: mean I-AUROC over all data sets for each detector, N and α.

    Args:
        rows: rows of the cells, with the comparator `none`.

    Returns:
        one row per detector, N and α: sets, draws, none, default, oracle (I-AUROC), gain (default minus none), gain_low
        and gain_high (Student's 95 % interval over draws, each the mean over the sets).
    """
    keys = ["detector", "n", "alpha"]
    found = []
    for values, group in rows.groupby(keys, sort=True):
        means = group.groupby("seed")[[NONE, "image_auroc", "oracle_image_auroc"]].mean()  # one row per draw
        gain, low, high = mean_with_interval(means["image_auroc"] - means[NONE])
        found.append(
            {
                **dict(zip(keys, values, strict=True)),
                "sets": group["dataset"].nunique(),
                "draws": len(means),
                "none": means[NONE].mean(),
                "default": means["image_auroc"].mean(),
                "oracle": means["oracle_image_auroc"].mean(),
                "gain": gain,
                "gain_low": low,
                "gain_high": high,
            }
        )
    return pd.DataFrame(found)


def ranking_figure(table: pd.DataFrame, path: Path) -> None:
    """Draw I-AUROC over N as PNG: one row of panels per detector, one column per α.

    Args:
        table: result of `ranking_over_sets`.
        path: PNG file.
    """
    detectors, ratios, sizes = (sorted(table[name].unique()) for name in ("detector", "alpha", "n"))
    lowest = float(table[["none", "default", "oracle"]].to_numpy().min())
    with figure(path, (4.4 * len(ratios), 3.2 * len(detectors)), columns=len(ratios), rows=len(detectors)) as axes:
        panels = iter(axes)
        for detector in detectors:
            for ratio in ratios:
                panel = next(panels)
                own = table[(table["detector"] == detector) & (table["alpha"] == ratio)]
                for name in ("oracle", "default", "none"):
                    panel.plot(own["n"], own[name], marker="o", color=POLICY_COLOURS[name], label=name)
                panel.set_xscale("log", base=2)
                panel.set_xticks(sizes, [str(size) for size in sizes])
                panel.set_ylim(lowest - 0.02, None)
                panel.set(title=f"{detector}, α = {ratio:g}", xlabel="N, training images", ylabel="I-AUROC")
        axes[0].legend(frameon=False)


def young_line_figure(table: pd.DataFrame, path: Path) -> None:
    """Draw recall and false-positive rate over N as PNG, one column per detector; dashed lines are the oracle's.

    Args:
        table: result of `over_sets`.
        path: PNG file.
    """
    detectors = sorted(table["detector"].unique())
    with figure(path, (4.4 * len(detectors), 6.4), columns=len(detectors), rows=2) as axes:
        for number, detector in enumerate(detectors):
            for row, (name, title) in enumerate((("recall", "recall"), ("fpr", "false-positive rate"))):
                panel = axes[row * len(detectors) + number]
                for colour, (alpha, own) in zip(
                    COLOURS, table[table["detector"] == detector].groupby("alpha"), strict=False
                ):
                    panel.plot(own["n"], own[name], marker="o", color=colour, label=f"α = {alpha:g}")
                    panel.plot(own["n"], own[f"oracle_{name}"], linestyle="--", linewidth=1, color=colour)
                panel.set_xscale("log", base=2)
                sizes = sorted(table["n"].unique())
                panel.set_xticks(sizes, [str(size) for size in sizes])
                panel.set_ylim(0, 1 if name == "recall" else max(0.06, float(np.nanmax(table[["fpr", "oracle_fpr"]]))))
                panel.set(title=f"{detector}: {title}", xlabel="N, training images")
        axes[0].legend(frameon=False)
