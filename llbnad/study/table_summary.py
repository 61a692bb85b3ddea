"""Summaries of the purification table: means over seeds, the share of the gap closed, and two pictures."""

from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.utils.files import replacing

RESAMPLES = 2000
SMALLEST_GAP = 0.005  # I-AUROC; a share of a smaller gap means nothing
COLOURS = {"none": "#D55E00", "oracle": "#0072B2", "default": "#009E73", "paper": "#CC79A7", "keep_80": "#E69F00"}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means and standard deviations over seeds, one row per data set, detector, α and policy."""
    keys = ["dataset", "detector", "alpha", "policy"]
    measured = ["image_auroc", "pixel_auroc", "aupro", "contamination_before", "contamination_after", "kept"]
    table = rows.groupby(keys, sort=True)[measured].agg(["mean", "std"])
    table.columns = ["_".join(pair) for pair in table.columns]
    return table.reset_index()


def gap_closed(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the gain of each policy over `none`, and its share of the gap from `none` to `oracle`, per detector and α.

    Differences are paired by data set and seed. The 95 % interval of the gain is a bootstrap over these pairs.

    Args:
        rows: rows of `run_cell`.
        seed: seed of the bootstrap.

    Returns:
        detector, alpha, policy, image_auroc (mean), gain, gain_low, gain_high, gap, closed (None if the gap is below
        SMALLEST_GAP).
    """
    rng = np.random.default_rng(seed)
    wide = rows.pivot_table(index=["detector", "alpha", "dataset", "seed"], columns="policy", values="image_auroc")
    found = []
    for (detector, alpha), group in wide.groupby(level=["detector", "alpha"]):
        if "oracle" not in group or group["oracle"].isna().all():
            continue
        gap = float((group["oracle"] - group["none"]).mean())
        for policy in group.columns.drop("none"):
            gains = (group[policy] - group["none"]).to_numpy()
            if np.isnan(gains).any():
                continue
            means = gains[rng.integers(0, len(gains), (RESAMPLES, len(gains)))].mean(axis=1)
            low, high = np.quantile(means, [0.025, 0.975])
            found.append(
                {
                    "detector": detector,
                    "alpha": alpha,
                    "policy": policy,
                    "image_auroc": float(group[policy].mean()),
                    "gain": float(gains.mean()),
                    "gain_low": float(low),
                    "gain_high": float(high),
                    "gap": gap,
                    "closed": float(gains.mean()) / gap if gap >= SMALLEST_GAP else None,
                }
            )
    return pd.DataFrame(found)


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
    for policy in ("default", "mad", "keep_80", "paper", "misindexed"):
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
