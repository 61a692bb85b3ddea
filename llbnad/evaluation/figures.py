"""The pictures that reports are made of: histograms, contact sheets with heat maps, ROC and precision-recall curves.

Equal content gives equal bytes: the style is fixed, and the file holds no date and no software version.
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
    from PIL import Image


# Okabe-Ito colours: distinguishable for colour-blind readers
NORMAL_COLOUR, ANOMALOUS_COLOUR, CUT_COLOUR, UNKNOWN_COLOUR = "#0072B2", "#D55E00", "#000000", "#56B4E9"
UNSURE_COLOUR = "#E69F00"
METHOD_COLOURS = {"llbnad": "#009E73", "none": "#D55E00", "oracle": "#0072B2", "random": "#999999"}
COLUMNS = 6  # tiles per row of a contact sheet
TILE_SIDE, CAPTION_HEIGHT = 0.97, 0.1  # on a contact sheet, in units of a column's width
ROW_HEIGHT = 2 + CAPTION_HEIGHT  # image, heat map and caption
HEAT_OPACITY = 0.55  # opacity of the hottest point
HEAT_MAP = "inferno"
HEAT_RANGE = (50.0, 99.5)  # percentiles of a sheet's maps that span the colours
BLOCK = 512  # side of the part of a picture that is coloured at once: some 80 bytes per pixel
SHEET_DPI, PLOT_DPI = 80, 110


@dataclass(frozen=True)
class Tile:
    """One image of a contact sheet."""

    image: np.ndarray  # (H, W, 3) uint8
    heat: np.ndarray  # (h, w) float32 patch map
    caption: str
    colour: str  # colour of the caption
    mask: np.ndarray | None = None  # (H, W) bool, drawn as an outline


def score_histogram(
    scores: np.ndarray, anomalous: np.ndarray | None, line: tuple[str, float] | None, path: Path, title: str
) -> None:
    """Draw a histogram of scores as PNG, coloured by label if labels are known.

    Without labels the axis of counts is logarithmic, so that a few outstanding images stay visible among many.

    Args:
        scores: (N,) image scores.
        anomalous: (N,) bool; None if labels are unknown.
        line: text and score of a vertical line, such as a threshold; None draws no line.
        path: PNG file.
        title: title of the picture.
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


def contact_sheet(tiles: Sequence[Tile], path: Path, title: str, scale: tuple[float, float] | None = None) -> None:
    """Draw a contact sheet as PNG: each image with its mask's outline if known, and again under its heat map.

    One colour scale spans the sheet, so that tiles can be compared. All tiles lie in one pair of axes, whose unit is
    the width of a column, because one pair of axes per tile would take matplotlib seconds.

    Args:
        tiles: the images, in their order on the sheet.
        path: PNG file.
        title: title of the picture.
        scale: values shown as coldest and hottest; None takes them from the tiles (`heat_range`).
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
            # parse_math=False: a caption may be a file name, in which "$" begins no formula
            axes.text(*where, tile.caption, fontsize=8, color=tile.colour, ha="center", parse_math=False)
        axes.set(xlim=(0, columns), ylim=(rows * ROW_HEIGHT, 0), aspect="equal")
        axes.axis("off")
        axes.set_title(title if tiles else f"{title}: none")


def _placed(image: np.ndarray, left: float, top: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of an image centred in the unit square whose corner is (left, top)."""
    height, width = (length / max(image.shape[:2]) * TILE_SIDE for length in image.shape[:2])
    left, bottom = left + (1 - width) / 2, top + (1 + height) / 2
    return left, left + width, bottom, bottom - height


def heat_range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the values to show as coldest and hottest in several patch maps, so that one scale fits all."""
    if not maps:
        return 0.0, 1.0
    low, high = np.percentile(np.concatenate([np.ravel(heat).astype(np.float64) for heat in maps]), HEAT_RANGE)
    return float(low), float(high)


def overlay(image: np.ndarray, heat: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Return an image under its heat map, (H, W, 3) uint8. The colour is more opaque where the map is hotter.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat: (h, w) patch map, which is resized to the image.
        scale: values shown as coldest and hottest.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    lay_heat(picture, heat, scale)
    return np.asarray(picture)


def lay_heat(picture: "Image.Image", heat: np.ndarray, scale: tuple[float, float]) -> None:
    """Lay a heat map over a picture, in place: block by block, so that a large picture needs little more memory.

    Args:
        picture: 8-bit RGB.
        heat: (h, w) patch map, which is resized to the picture.
        scale: values shown as coldest and hottest.
    """
    from PIL import Image

    low, high = scale
    relative = Image.fromarray(((heat.astype(np.float32) - low) / max(high - low, 1e-12)).clip(0, 1))
    across, down = relative.width / picture.width, relative.height / picture.height
    for top in range(0, picture.height, BLOCK):
        for left in range(0, picture.width, BLOCK):
            right, bottom = min(left + BLOCK, picture.width), min(top + BLOCK, picture.height)
            box = (left * across, top * down, min(right * across, relative.width), min(bottom * down, relative.height))
            size = (right - left, bottom - top)
            hot = np.asarray(relative.resize(size, Image.Resampling.BICUBIC, box)).clip(0, 1)
            blended = _blended(np.asarray(picture.crop((left, top, right, bottom))), hot)
            picture.paste(Image.fromarray(blended), (left, top))


def _blended(image: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 under the colours of `hot` (H, W), in [0, 1]."""
    from matplotlib import colormaps

    colour = colormaps[HEAT_MAP](hot)[..., :3] * 255
    opacity = HEAT_OPACITY * hot[..., None] ** 0.5
    return np.asarray((image * (1 - opacity) + colour * opacity).round().clip(0, 255), dtype=np.uint8)


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
