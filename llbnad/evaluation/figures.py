"""The pictures every report is made of: histograms, contact sheets with heat maps, ROC and PR curves, drift over time.

Equal content gives equal bytes: a fixed style, no date, no software version in the file.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.evaluation.metrics import pr_curve, ranking, roc_curve
from llbnad.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Okabe-Ito colours: distinguishable for colour-blind readers
NORMAL_COLOUR, ANOMALOUS_COLOUR, CUT_COLOUR, UNKNOWN_COLOUR = "#0072B2", "#D55E00", "#000000", "#56B4E9"
METHOD_COLOURS = {"llbnad": "#009E73", "none": "#D55E00", "oracle": "#0072B2", "random": "#999999"}
COLUMNS = 6  # tiles in a row of a contact sheet
TILE_SIDE, CAPTION_HEIGHT = 0.97, 0.1  # of a contact sheet, as shares of the room a tile has
ROW_HEIGHT = 2 + CAPTION_HEIGHT  # image, heat map and caption
HEAT_OPACITY = 0.55  # of the hottest point
HEAT_MAP = "inferno"
HEAT_RANGE = (50.0, 99.5)  # percentiles of a sheet's maps that span the colours
SHEET_DPI, PLOT_DPI = 80, 110


@dataclass(frozen=True)
class Tile:
    """One image of a contact sheet."""

    image: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray  # (h, w) float32 patch map
    caption: str
    colour: str  # of caption and frame
    mask: np.ndarray | None = None  # (H, W) bool, drawn as an outline


def score_histogram(
    scores: np.ndarray, anomalous: np.ndarray | None, line: tuple[str, float] | None, path: Path, title: str
) -> None:
    """Histogram of scores (N,), coloured by label (N,) bool where known, with a line: what it says, and at which score.

    Without labels the counts are on a logarithmic axis: among many images, the few that stand out stay visible.
    """
    with figure(path, (7.5, 4)) as (axes,):
        bins = np.histogram_bin_edges(scores, bins=min(60, max(10, len(scores) // 8))).tolist()
        if anomalous is None:
            axes.hist(scores, bins, color=UNKNOWN_COLOUR, label=f"unlabelled ({len(scores)})")
            axes.set_yscale("symlog", linthresh=1)
            axes.yaxis.set_major_formatter("{x:.0f}")
        else:
            groups = [scores[~anomalous], scores[anomalous]]
            labels = [f"normal ({len(groups[0])})", f"anomalous ({len(groups[1])})"]
            axes.hist(groups, bins, stacked=True, color=[NORMAL_COLOUR, ANOMALOUS_COLOUR], label=labels)
        if line is not None:
            text, score = line
            axes.axvline(score, color=CUT_COLOUR, linestyle="--", label=f"{text} ({score:.2f})")
        axes.set(title=title, xlabel="anomaly score", ylabel="images")
        axes.legend(frameon=False)


def curves(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """ROC and precision-recall curves; per method the scores of the normal and of the anomalous images."""
    with figure(path, (10, 4.6), columns=2) as (roc, pr):
        for method, (normal, anomalous) in scores.items():
            found = ranking(normal, anomalous)
            if found is None:
                continue
            style: dict[str, Any] = {
                "color": METHOD_COLOURS.get(method),
                "linewidth": 2.4 if method == "llbnad" else 1.4,
            }
            roc.plot(*roc_curve(normal, anomalous), label=f"{method}  AUROC {found.auroc:.3f}", **style)
            pr.plot(*pr_curve(normal, anomalous), label=f"{method}  AP {found.ap:.3f}", **style)
        roc.plot([0, 1], [0, 1], color="#cccccc", linewidth=1, linestyle=":")
        roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
        pr.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
        roc.legend(frameon=False, loc="lower right")
        pr.legend(frameon=False, loc="lower left")


def contact_sheet(tiles: Sequence[Tile], path: Path, title: str, scale: tuple[float, float] | None = None) -> None:
    """Every tile twice: the image with its mask's outline if known, and the image under its heat map.

    One colour scale spans the sheet, `scale` or the tiles' own, so that tiles can be compared. All tiles lie in one
    pair of axes, whose unit is a tile's side: a pair for each would take matplotlib seconds.
    """
    columns = min(COLUMNS, max(1, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    scale = scale or heat_range([tile.heat for tile in tiles])
    with figure(path, (2.0 * columns, 2.0 * ROW_HEIGHT * rows + 0.5), dpi=SHEET_DPI) as (axes,):
        for number, tile in enumerate(tiles):
            row, column = divmod(number, columns)
            top = row * ROW_HEIGHT + CAPTION_HEIGHT
            above, below = (_placed(tile.image, column, start) for start in (top, top + 1))
            axes.imshow(tile.image, extent=above)
            if tile.mask is not None and tile.mask.any():
                axes.contour(tile.mask, levels=[0.5], colors=["#00FF00"], linewidths=0.8, extent=above, origin="upper")
            axes.imshow(overlay(tile.image, tile.heat, scale), extent=below)
            where = (column + 0.5, above[3] - 0.02)
            # a caption may be a file's name: "$" is no formula there
            axes.text(*where, tile.caption, fontsize=8, color=tile.colour, ha="center", parse_math=False)
        axes.set(xlim=(0, columns), ylim=(rows * ROW_HEIGHT, 0), aspect="equal")
        axes.axis("off")
        axes.set_title(title if tiles else f"{title}: none")


def _placed(image: np.ndarray, left: float, top: float) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of an image in a unit square whose corner is (left, top), beside a narrow gap."""
    height, width = (length / max(image.shape[:2]) * TILE_SIDE for length in image.shape[:2])
    left, bottom = left + (1 - width) / 2, top + (1 + height) / 2
    return left, left + width, bottom, bottom - height


def heat_range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """The values that span the colour scale of several patch maps."""
    if not maps:
        return 0.0, 1.0
    low, high = np.percentile(np.concatenate([np.ravel(heat).astype(np.float64) for heat in maps]), HEAT_RANGE)
    return float(low), float(high)


def overlay(image: np.ndarray, heat: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """An image (H, W, 3) uint8 under its patch map (h, w): the hotter, the more of the colour, (H, W, 3) uint8.

    Args:
        image: RGB.
        heat: patch map, resized to the image.
        scale: values shown as coldest and hottest.
    """
    from matplotlib import colormaps
    from PIL import Image

    low, high = scale
    relative = ((heat.astype(np.float32) - low) / max(high - low, 1e-12)).clip(0, 1)
    height, width = image.shape[:2]
    resized = np.asarray(Image.fromarray(relative).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    colour = colormaps[HEAT_MAP](resized)[..., :3] * 255
    opacity = HEAT_OPACITY * resized[..., None] ** 0.5
    return np.asarray((image * (1 - opacity) + colour * opacity).round().clip(0, 255), dtype=np.uint8)


@contextmanager
def figure(
    path: Path, size: tuple[float, float], columns: int = 1, rows: int = 1, dpi: int = PLOT_DPI
) -> Iterator[list["Axes"]]:
    """Axes of a new figure, row by row; the figure is written as PNG at the end."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # the library's own defaults, whatever the user's matplotlibrc says
    with mpl.rc_context({**mpl.rcParamsDefault, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        yield list(axes.flat)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
