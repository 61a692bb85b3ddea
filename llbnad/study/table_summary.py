"""Summaries of the purification table: means over seeds, the share of the gap closed, and two pictures."""

from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.study.bootstrap import differences
from llbnad.utils.files import replacing

COLOURS = {"none": "#D55E00", "oracle": "#0072B2", "default": "#009E73", "paper": "#CC79A7", "keep_80": "#E69F00"}


KEYS = ("dataset", "detector", "alpha")


def summary(rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return means and standard deviations over seeds, one row per data set, detector, α and policy.

    `difference`, its interval and `significance` compare I-AUROC with `none` (`study.bootstrap`).

    Args:
        rows: rows of the cells.
        scores: test scores of the cells.
    """
    keys = [*KEYS, "policy"]
    measured = ["image_auroc", "pixel_auroc", "aupro", "contamination_before", "contamination_after", "kept"]
    table = rows.groupby(keys, sort=True)[measured].agg(["mean", "std"])
    table.columns = ["_".join(pair) for pair in table.columns]
    compared = differences(scores, KEYS, base="none").rename(columns={"method": "policy"}).drop(columns="seeds")
    return table.reset_index().merge(compared, on=keys, how="left", validate="1:1")


def gap_closed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the gain of each policy over `none`, and its share of the gap from `none` to `oracle`.

    Differences are paired by seed. Intervals are Student's, at 95 %, over seeds.

    Args:
        rows: rows of `run_cell`.

    Returns:
        dataset, detector, alpha, policy, image_auroc (mean), gain, gain_low, gain_high, gap, gap_low, gap_high, closed.
        `closed` is missing, because it is not measurable, where the gap's interval reaches 0.
    """
    wide = rows.pivot_table(
        index=["dataset", "detector", "alpha", "seed"], columns="policy", values="image_auroc", sort=True
    )
    found = []
    for (dataset, detector, alpha), group in wide.groupby(level=["dataset", "detector", "alpha"]):
        if "oracle" not in group or group["oracle"].isna().all():
            continue
        gap, gap_low, gap_high = mean_with_interval(group["oracle"] - group["none"])
        for policy in group.columns.drop("none"):
            gains = group[policy] - group["none"]
            if gains.isna().any():
                continue
            gain, gain_low, gain_high = mean_with_interval(gains)
            found.append(
                {
                    "dataset": dataset,
                    "detector": detector,
                    "alpha": alpha,
                    "policy": policy,
                    "image_auroc": float(group[policy].mean()),
                    "gain": gain,
                    "gain_low": gain_low,
                    "gain_high": gain_high,
                    "gap": gap,
                    "gap_low": gap_low,
                    "gap_high": gap_high,
                    "closed": gain / gap if gap_low > 0 else None,
                }
            )
    return pd.DataFrame(found).astype({"closed": "float64"})


def gap_over_sets(closed: pd.DataFrame) -> pd.DataFrame:
    """Return one row per detector and policy from the result of `gap_closed`.

    Returns:
        detector, policy, sets (data sets with a measurable gap), closed (mean over them of the share of the gap closed,
        the gains of all α > 0 with a measurable gap over their gaps), least_clean and least_noisy (the smallest gain
        over `none` on any set, at α = 0 and at any α > 0).
    """
    found = []
    for (detector, policy), group in closed.groupby(["detector", "policy"]):
        noisy = group[group["alpha"] > 0]
        sums = noisy[noisy["closed"].notna()].groupby("dataset")[["gain", "gap"]].sum()
        found.append(
            {
                "detector": detector,
                "policy": policy,
                "sets": len(sums),
                "closed": float((sums["gain"] / sums["gap"]).mean()) if len(sums) else np.nan,
                "least_clean": group.loc[group["alpha"] == 0, "gain"].min(),
                "least_noisy": noisy["gain"].min(),
            }
        )
    return pd.DataFrame(found)


def mean_with_interval(values: pd.Series) -> tuple[float, float, float]:
    """Return the mean of values over seeds, and its 95 % interval; one value has no finite interval."""
    from scipy import stats

    mean, n = float(values.mean()), len(values)
    if n < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def table_figure(rows: pd.DataFrame, path: Path) -> None:
    """Draw I-AUROC over α as PNG, with the band between `none` and `oracle`: one panel per detector.

    Values are means over data sets and seeds.
    """
    import matplotlib.pyplot as plt

    detectors = [name for name, group in rows.groupby("detector") if "oracle" in set(group["policy"])]
    figure, panels = plt.subplots(1, len(detectors), figsize=(4 * len(detectors), 3.4), squeeze=False)
    for panel, detector in zip(panels[0], detectors, strict=True):
        mean = rows[rows["detector"] == detector].groupby(["policy", "alpha"])["image_auroc"].mean().unstack("policy")
        panel.fill_between(mean.index, mean["none"], mean["oracle"], color="#DDDDDD", label="none … oracle")
        for policy, colour in COLOURS.items():
            if policy in mean:
                panel.plot(mean.index, mean[policy], marker="o", color=colour, label=policy)
        panel.set_title(detector)
        panel.set_xlabel("α, share of defective training samples")
    panels[0][0].set_ylabel("I-AUROC")
    panels[0][-1].legend(fontsize=7)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def contamination_figure(rows: pd.DataFrame, path: Path) -> None:
    """Draw contamination after over before, and precision over recall of the rejection, as PNG: one point per run."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for policy in ("default", "mixture_patches", "mad", "keep_80", "paper"):
        chosen = rows[(rows["policy"] == policy) & (rows["alpha"] > 0)]
        left.scatter(chosen["contamination_before"], chosen["contamination_after"], s=12, label=policy)
        recall = 1 - chosen["contamination_after"] * chosen["kept"] / chosen["contamination_before"]
        right.scatter(recall, chosen["rejected_anomalous"], s=12, label=policy)
    left.plot([0, 0.4], [0, 0.4], color="#999999", linewidth=1)
    left.set_xlabel("contamination before")
    left.set_ylabel("contamination after")
    right.set_xlabel("recall: share of the anomalous that is rejected")
    right.set_ylabel("precision: anomalous share of the rejected")
    right.legend(fontsize=7)
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
