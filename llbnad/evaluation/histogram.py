"""The histogram of scores, with the lines and the band that decide."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llbnad.evaluation.figures import (
    ANOMALOUS_COLOUR,
    CUT_COLOUR,
    NORMAL_COLOUR,
    UNKNOWN_COLOUR,
    UNSURE_COLOUR,
    figure,
)

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
        axes.hist(groups, _edges(scores, wide), stacked=True, color=colours, label=labels)
        if unsure is not None:
            text = f"unsure, {unsure[0]:.4g} to {unsure[1]:.4g}"
            axes.axvspan(*unsure, color=UNSURE_COLOUR, alpha=0.3, zorder=0, label=text)
        for (text, score), style in zip(lines, LINES, strict=False):
            axes.axvline(score, color=CUT_COLOUR, linestyle=style, label=f"{text} ({score:.4g})")
        if wide:
            axes.set_xscale("log")
        if anomalous is None:
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:.0f}")
        axes.set_xlabel("anomaly score, logarithmic" if wide else "anomaly score")
        axes.set_ylabel("number of images, logarithmic" if anomalous is None else "number of images")
        axes.set_title(title)
        axes.legend(frameon=False, fontsize=9)


def _edges(scores: np.ndarray, wide: bool) -> list[float]:
    count = min(60, max(10, len(scores) // 8))
    edges: np.ndarray = np.histogram_bin_edges(np.log(scores) if wide else scores, bins=count)
    return (np.exp(edges) if wide else edges).tolist()


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
