"""The pictures that reports are made of: contact sheets with heat maps, ROC and precision-recall curves.

Equal content gives equal bytes: the style is fixed, and the file holds no date and no software version.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.evaluation.heat_scale import HeatScale, bar, heat_scale, overlay
from llbnad.evaluation.metrics import pr_curve, ranking, roc_curve
from llbnad.evaluation.tile_names import short_names
from llbnad.utils.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


# Okabe-Ito colours: distinguishable for colour-blind readers
NORMAL_COLOUR, ANOMALOUS_COLOUR, CUT_COLOUR, UNKNOWN_COLOUR = "#0072B2", "#D55E00", "#000000", "#56B4E9"
UNSURE_COLOUR = "#595959"  # neither of the two
FOUND_COLOUR, MISSED_COLOUR, FALSE_ALARM_COLOUR = "#009E73", "#D55E00", "#AA4499"
METHOD_COLOURS = {"llbnad": "#009E73", "none": "#D55E00", "oracle": "#0072B2", "random": "#999999"}
COLUMNS = 6  # tiles per row of a contact sheet
# on a contact sheet, in units of a column's width
TILE_SIDE, CAPTION_HEIGHT, BAR_HEIGHT, LINE_HEIGHT = 0.97, 0.2, 0.22, 0.08
ROW_HEIGHT = 2 + CAPTION_HEIGHT  # image, heat map and the two lines of the caption
TITLE_LETTERS, BAR_LETTERS = 27, 34  # of the title and below the bar, per column
SHEET_DPI, PLOT_DPI = 80, 110


@dataclass(frozen=True)
class Tile:
    """One image of a contact sheet."""

    image: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray  # (h, w) float32 patch map
    caption: str
    colour: str  # colour of caption and frame
    mask: np.ndarray | None = None  # (H, W) bool, drawn as an outline
    name: str = ""  # path or name of the image, for the caption's first line


def curves(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Draw ROC and precision-recall curves as PNG.

    Args:
        scores: scores of the normal images and of the anomalous images, by method.
        path: PNG file.
    """
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


def contact_sheet(
    tiles: Sequence[Tile], path: Path, title: str, scale: HeatScale | None = None, columns: int = COLUMNS
) -> None:
    """Draw a contact sheet as PNG: each image with its mask's outline if known, and again under its heat map.

    One colour scale spans the sheet, so that tiles can be compared; a bar below them says what it is anchored at. All
    tiles lie in one pair of axes, whose unit is the width of a column, because one pair of axes per tile would take
    matplotlib seconds. Where a name is too long for its tile, what all names have in common stands in the title, once.

    Args:
        tiles: the images, in their order on the sheet.
        path: PNG file.
        title: title of the picture.
        scale: how values are shown; None takes the range of the tiles.
        columns: tiles per row, at most.
    """
    columns = min(columns, max(1, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / columns))
    scale = scale or heat_scale(None, [tile.heat for tile in tiles])
    names, in_common = short_names([tile.name for tile in tiles])
    lines = textwrap.wrap(title if tiles else f"{title}: none", max(TITLE_LETTERS * columns, 36))
    lines += textwrap.wrap(in_common, max(TITLE_LETTERS * columns, 36))
    said = textwrap.wrap(scale.caption(), BAR_LETTERS * columns)
    height = rows * ROW_HEIGHT + BAR_HEIGHT + LINE_HEIGHT * len(said)
    with figure(path, (2.0 * columns, 2.0 * height + 0.25 * (1 + len(lines))), dpi=SHEET_DPI) as (axes,):
        for number, (tile, name) in enumerate(zip(tiles, names, strict=True)):
            row, column = divmod(number, columns)
            top = row * ROW_HEIGHT + CAPTION_HEIGHT
            above, below = (_placed(tile.image, column, start) for start in (top, top + 1))
            axes.imshow(tile.image, extent=above)
            if tile.mask is not None and tile.mask.any():
                axes.contour(tile.mask, levels=[0.5], colors=["#00FF00"], linewidths=0.8, extent=above, origin="upper")
            axes.imshow(overlay(tile.image, tile.heat, scale), extent=below)
            _frame(axes, tile.colour, above, below)
            # parse_math=False, here and in the title: in a file's name "$" begins no formula
            style: dict[str, Any] = {"ha": "center", "parse_math": False}
            axes.text(column + 0.5, above[3] - 0.105, name, fontsize=7, color="#333333", **style)
            axes.text(column + 0.5, above[3] - 0.02, tile.caption, fontsize=8, color=tile.colour, **style)
        if tiles:
            _draw_bar(axes, scale, said, columns, rows * ROW_HEIGHT)
        axes.set(xlim=(0, columns), ylim=(height, 0), aspect="equal")
        axes.axis("off")
        axes.set_title("\n".join(lines), fontsize=11, parse_math=False)


def _placed(image: np.ndarray, left: float, top: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of an image centred in the unit square whose corner is (left, top)."""
    height, width = (length / max(image.shape[:2]) * TILE_SIDE for length in image.shape[:2])
    left, bottom = left + (1 - width) / 2, top + (1 + height) / 2
    return left, left + width, bottom, bottom - height


def _frame(axes: "Axes", colour: str, *places: tuple[float, float, float, float]) -> None:
    """Frame pictures in the colour of their caption."""
    for left, right, bottom, top in places:
        axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, linewidth=1.2)


def _draw_bar(axes: "Axes", scale: HeatScale, said: Sequence[str], columns: int, top: float) -> None:
    """Draw the colour scale below the tiles, with its values and what it is anchored at, line by line."""
    width = min(2.0, columns * 0.9)
    left, right = columns / 2 - width / 2, columns / 2 + width / 2
    axes.imshow(bar(256, 8), extent=(left, right, top + 0.12, top + 0.05), aspect="auto")
    limits = {left: f"≤ {scale.low:.4g}", (left + right) / 2: f"{scale.limit:.4g}", right: f"≥ {scale.high:.4g}"}
    for where, text in limits.items():
        axes.plot([where, where], [top + 0.05, top + 0.135], color="#333333", linewidth=0.8)
        axes.text(where, top + 0.19, text, fontsize=7, ha="center")
    for number, line in enumerate(said, start=1):
        axes.text(columns / 2, top + 0.19 + LINE_HEIGHT * number, line, fontsize=7, ha="center")


@contextmanager
def figure(
    path: Path, size: tuple[float, float], columns: int = 1, rows: int = 1, dpi: int = PLOT_DPI
) -> Iterator[list["Axes"]]:
    """Yield the axes of a new figure, row by row, and write the figure as PNG when the block ends.

    Args:
        path: PNG file.
        size: width and height in inches.
        columns: axes per row.
        rows: rows of axes.
        dpi: pixels per inch.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # the library's own defaults, so that the user's matplotlibrc changes no picture
    with mpl.rc_context({**mpl.rcParamsDefault, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False)
        yield list(axes.flat)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})


def plain_numbers(axis: "Axis", low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers such as 0.5, where matplotlib by itself writes 5e-01.

    Args:
        axis: the axis.
        low: smallest value that is shown, above 0.
        high: largest value.
    """
    from matplotlib.ticker import LogLocator

    fine = high < 1000 * low  # room for labels between powers of ten
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")
