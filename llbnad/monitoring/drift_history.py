"""The picture of a line's drift: every statistic over the batches of the line."""

from collections.abc import Mapping
from pathlib import Path

from llbnad.evaluation.figures import ANOMALOUS_COLOUR, CUT_COLOUR, NORMAL_COLOUR, figure
from llbnad.monitoring.drift import DriftReport


def drift_history(reports: Mapping[str, DriftReport], path: Path, title: str) -> None:
    """Draw every statistic over the batches as PNG: its value, the reference's value, and marks where it drifted.

    Args:
        reports: at least one report, by the name of its batch, oldest first.
        path: PNG file.
        title: title of the picture.
    """
    names = list(dict.fromkeys(one.name for report in reports.values() for one in report.statistics))
    labels = {"features": "distance of features", "sharpness": "sharpness (log10)", "size": "pixels (log10)",
              "rejection": "share of defects"}  # fmt: skip
    with figure(path, (max(6.0, 1.6 + 0.5 * len(reports)), 1.5 * len(names) + 1), 1, len(names)) as grid:
        for axes, name in zip(grid, names, strict=True):
            found = {
                number: one
                for number, report in enumerate(reports.values())
                for one in report.statistics
                if one.name == name
            }
            axes.plot(list(found), [one.reference for one in found.values()], color=CUT_COLOUR, linestyle="--",
                      linewidth=1, label="reference")  # fmt: skip
            axes.plot(list(found), [one.batch for one in found.values()], color=NORMAL_COLOUR, marker="o",
                      label="batch")  # fmt: skip
            drifted = {number: one.batch for number, one in found.items() if one.drifted}
            axes.scatter(list(drifted), list(drifted.values()), 90, color=ANOMALOUS_COLOUR, marker="X", zorder=3,
                         label="drifted")  # fmt: skip
            axes.set_ylabel(labels.get(name, name), fontsize=9)
            axes.set_xticks(range(len(reports)), [])
            axes.margins(x=0.05, y=0.25)
        grid[-1].set_xticks(range(len(reports)), list(reports), rotation=45, ha="right", fontsize=8)
        grid[0].set_title(title, loc="left")
        handles, texts = grid[0].get_legend_handles_labels()
        grid[0].figure.legend(handles, texts, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
