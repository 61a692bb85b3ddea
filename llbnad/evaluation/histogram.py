"""The histogram of scores, with the lines and the band that decide."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llbnad.evaluation.figures import (
    ANOMALOUS_COLOUR,
    CUT_COLOUR,
    NORMAL_COLOUR,
    UNKNOWN_COLOUR,
    UNSURE_COLOUR,
    figure,
    plain_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 10  # times the median: from there on, a linear axis would show one bar and much nothing
SUSPECT_COLOUR = "#CC79A7"  # beyond the line, where nobody knows what is a defect
LINES = ("--", ":", "-.")

Line = tuple[str, float]  # what a line says, and its score


def score_histogram(
    scores: np.ndarray,
    anomalous: np.ndarray | None,
    lines: Sequence[Line],
    path: Path,
    title: str,
    unsure: tuple[float, float] | None = None,
) -> None:
    """Draw a histogram of scores as PNG, coloured by label if labels are known, else by the side of the first line.

    Every bar lies on one side of each line; a score on a line lies left of it, as the decision has it.
    Without labels the axis of counts is logarithmic, so that a few outstanding images stay visible among many. Both
    axes say so where they are logarithmic.

    Args:
        scores: (N,) image scores.
        anomalous: (N,) bool; None if labels are unknown.
        lines: vertical lines, such as a threshold; the first one decides.
        path: PNG file.
        title: title of the picture.
        unsure: scores called unsure, from and to; None if none are.
    """
    wide = bool(len(scores)) and scores.min() > 0 and scores.max() > WIDE * np.median(scores)
    with figure(path, (7.5, 4)) as (axes,):
        groups, labels, colours = _groups(scores, anomalous, lines)
        edges = bar_edges(scores, [score for _, score in lines], wide)
        axes.hist(groups, edges, stacked=True, color=colours, label=labels)
        if unsure is not None:
            text = f"unsure, {unsure[0]:.4g} to {unsure[1]:.4g}"
            axes.axvspan(*unsure, color=UNSURE_COLOUR, alpha=0.3, zorder=0, label=text)
        for (text, score), style in zip(lines, LINES, strict=False):
            axes.axvline(score, color=CUT_COLOUR, linestyle=style, label=f"{text} ({score:.4g})")
        if wide:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis, scores.min(), scores.max())
        if anomalous is None:
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel("anomaly score, logarithmic" if wide else "anomaly score")
        axes.set_ylabel("number of images, logarithmic" if anomalous is None else "number of images")
        axes.set_title(title)
        _legend_below(axes)


def _legend_below(axes: "Axes") -> None:
    """Put the legend below the axes, where it hides no bar, in as many columns as the picture is wide."""
    drawn = axes.figure
    for columns in (3, 2, 1):
        legend = drawn.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        if legend.get_window_extent().width <= drawn.bbox.width:
            return
        if columns > 1:
            legend.remove()


def bar_edges(scores: np.ndarray, limits: Sequence[float], wide: bool) -> list[float]:
    """Return the edges of bars that span the scores, so that no bar lies on both sides of a limit.

    The bars are equally wide, and the grid begins at the first limit. Any other limit divides the bar that it is in.

    Args:
        scores: (N,) image scores.
        limits: scores above which the decision is another.
        wide: whether bars are equally wide on a logarithmic axis, rather than a linear one.
    """
    values = np.asarray(scores, np.float64)
    count = min(60, max(10, len(values) // 8))
    places = np.histogram_bin_edges(np.log(values) if wide else values, bins=count)
    low, high, width = places[0], places[-1], places[1] - places[0]
    inside = [limit for limit in limits if values.size and values.min() <= limit < values.max()]
    if not inside:
        return (np.exp(places) if wide else places).tolist()
    first = np.log(inside[0]) if wide else inside[0]
    steps = np.arange(np.floor((low - first) / width), np.ceil((high - first) / width) + 1)
    grid = first + width * steps[steps != 0]
    # a bar holds the scores from its left edge on, so the edge lies just above the limit itself
    exact = [np.nextafter(limit, np.inf) for limit in inside]
    edges = np.unique([*(np.exp(grid) if wide else grid), *exact])
    edges[0], edges[-1] = min(edges[0], values.min()), max(edges[-1], values.max())  # against rounding
    return edges.tolist()


def _groups(
    scores: np.ndarray, anomalous: np.ndarray | None, lines: Sequence[Line]
) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Return scores, names and colours of the bars' parts."""
    if anomalous is not None:
        parts = [(scores[~anomalous], "normal", NORMAL_COLOUR), (scores[anomalous], "anomalous", ANOMALOUS_COLOUR)]
    elif lines:
        above = scores > lines[0][1]
        parts = [(scores[~above], "no label, up to the line", UNKNOWN_COLOUR),
                 (scores[above], "no label, above it", SUSPECT_COLOUR)]  # fmt: skip
    else:
        parts = [(scores, "no label", UNKNOWN_COLOUR)]
    return [one for one, _, _ in parts], [f"{name} ({len(one)})" for one, name, _ in parts], [one[2] for one in parts]
