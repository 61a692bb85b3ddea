"""The view of an image: how it becomes the canvas of pixels that the encoder sees, and the way back.

* `squeeze`: the canvas is the encoder's square, and the image fills it. The aspect ratio is not kept.
* `letterbox`: the canvas is the encoder's square. The image lies in its middle at its own aspect ratio. Its edge pixels
  are repeated outwards, because a uniform margin would look like a contour.
* `tiles`: the canvas is made of rows × columns squares that overlap, and the image lies in it as in a letterbox. The
  encoder sees one square at a time (`llbnad.encoders.tiled`).

All images of a scenario have the same canvas. A frame says where an image lies on it, and which patches are inside:
those with at least half of their area on the image and in the region of interest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from llbnad.config import EncoderConfig, Window
from llbnad.data.images import load_whole
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

HALF = 0.5  # share of a patch's area from which on it is inside
ROUNDING = 1e-6  # of a share: rounding must not lose a patch of exactly one half
KNOWN = 64  # patch masks kept in memory: one per size of image, region and grid


@dataclass(frozen=True)
class Canvas:
    """The pixels that all images of a scenario are laid on.

    Args:
        config: settings of the encoder.
        cell: pixels by which a tile may be shifted (`llbnad.encoders.base.Recipe.cell`).
    """

    config: EncoderConfig
    cell: int

    @cached_property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share: whole cells, nearest to the setting."""
        return round(self.config.overlap * self.config.input_size / self.cell) * self.cell

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return (self.config.tiles[0], self.config.tiles[1]) if self.config.view == "tiles" else (1, 1)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        rows, columns = self.grid
        side, step = self.config.input_size, self.config.input_size - self.overlap
        return side + (columns - 1) * step, side + (rows - 1) * step

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each tile in pixels, row by row."""
        (rows, columns), step = self.grid, self.config.input_size - self.overlap
        return [(row * step, column * step) for row in range(rows) for column in range(columns)]

    def batch_size(self, images: int) -> int:
        """Return how many images to hold at once where `images` of one tile fit into memory."""
        rows, columns = self.grid
        return max(1, images // (rows * columns))

    def frame(self, image: tuple[int, int], region: RegionOfInterest | None = None) -> "Frame":
        """Return where an image of (width, height) pixels lies."""
        width, height = self.size
        if self.config.view == "squeeze":
            return Frame(self.size, (0, 0, width, height), image, region)
        # in fractions, so that a graph's whole numbers give the same (`llbnad.inference.graph.lay`)
        scale = min(Fraction(width, image[0]), Fraction(height, image[1]))
        across, down = (max(1, round(length * scale)) for length in image)
        # whole cells from the corner, so that equal images meet the network's strides equally
        left, top = ((whole - part) // 2 // self.cell * self.cell for whole, part in ((width, across), (height, down)))
        return Frame(self.size, (left, top, left + across, top + down), image, region)

    def frames(self, manifest: "pd.DataFrame", region: RegionOfInterest | None) -> dict[str, "Frame"]:
        """Return the frame of each image of a manifest by its id; empty if every patch of every image is inside.

        Raises:
            DataError: nothing of an image is in the region.
        """
        if self.config.view == "squeeze" and region is None:
            return {}
        known: dict[tuple[int, int], Frame] = {}
        found = {}
        for image_id, path, *size in manifest[["image_id", "path", "width", "height"]].itertuples(
            index=False, name=None
        ):
            width, height = map(int, size)
            if (width, height) not in known:
                known[width, height] = self.frame((width, height), region)
                try:
                    known[width, height].inside((1, 1))
                except DataError as error:
                    raise DataError(f"{path}: {error}") from None
            found[image_id] = known[width, height]
        return found

    def load(
        self, source: Path | bytes | np.ndarray, window: Window | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """Return an image on its canvas, (H, W, 3) uint8 RGB, and its own width and height.

        Arguments and errors are those of `llbnad.data.images.load_whole`.
        """
        image = load_whole(source, window)
        return self.lay(image), image.size

    def lay(self, image: Image.Image) -> np.ndarray:
        """Return an RGB image on the canvas, (H, W, 3) uint8."""
        left, top, right, bottom = self.frame(image.size).box
        fitted = np.asarray(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
        width, height = self.size
        margins = ((top, height - bottom), (left, width - right), (0, 0))
        return np.pad(fitted, margins, mode="edge") if any(map(sum, margins)) else fitted


@dataclass(frozen=True)
class Frame:
    """Where one image lies on its canvas, and which part of it counts."""

    canvas: tuple[int, int]  # width and height in pixels
    box: tuple[int, int, int, int]  # left, top, right and bottom of the image on the canvas, in pixels
    image: tuple[int, int]  # width and height of the image itself, in pixels
    region: RegionOfInterest | None = None  # None: the whole image

    def pixels(self) -> np.ndarray:
        """Return which pixels of the canvas are on the image and in its region, (H, W) bool."""
        left, top, right, bottom = self.box
        inside = np.zeros(self.canvas[::-1], bool)
        size = (right - left, bottom - top)
        inside[top:bottom, left:right] = True if self.region is None else self.region.draw(self.image, size)
        return inside

    def inside(self, grid: tuple[int, int]) -> np.ndarray:
        """Return which patches of a grid (h, w) over the canvas are inside, (h, w) bool. Callers must not modify it.

        If no patch reaches half, those with the largest share are inside.

        Raises:
            DataError: nothing of the image is in the region.
        """
        return _inside(self, grid)

    def off_canvas(self, patch_map: np.ndarray) -> np.ndarray:
        """Return the part of a patch map (h, w) over the canvas that lies on the image, as a map over the image.

        The result has about as many patches as lie on the image. It is the same array where the image fills the canvas.
        """
        if self.box == (0, 0, *self.canvas):
            return patch_map
        height, width = patch_map.shape
        across, down = width / self.canvas[0], height / self.canvas[1]
        left, top, right, bottom = self.box
        box = (left * across, top * down, right * across, bottom * down)
        size = (
            max(1, round((right - left) * width / self.canvas[0])),
            max(1, round((bottom - top) * height / self.canvas[1])),
        )
        picture = Image.fromarray(patch_map.astype(np.float32))
        return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box)).astype(patch_map.dtype)

    def on_canvas(self, drawn: np.ndarray) -> np.ndarray:
        """Lay what is drawn over an image, (bottom - top, right - left) bool, on an empty canvas (H, W)."""
        left, top, right, bottom = self.box
        found = np.zeros(self.canvas[::-1], bool)
        found[top:bottom, left:right] = drawn
        return found


def off_canvas(maps: Mapping[str, np.ndarray], frames: Mapping[str, Frame]) -> dict[str, np.ndarray]:
    """Return patch maps over the canvas, by image id, as maps over the images. A map without a frame stays."""
    return {one: frames[one].off_canvas(found) if one in frames else found for one, found in maps.items()}


def view_line(canvas: Canvas, manifest: "pd.DataFrame") -> str:
    """Say how large the images of a manifest are seen, in one line."""
    width, height = (int(manifest[side].median()) for side in ("width", "height"))
    left, top, right, bottom = canvas.frame((width, height)).box
    rows, columns = canvas.grid
    shown = f"{width} × {height} px are seen as {right - left} × {bottom - top} px ({(right - left) / width:.0%})"
    tiles = f", in {rows} × {columns} tiles of {canvas.config.input_size} px" if rows * columns > 1 else ""
    return f"view {canvas.config.view}: images of {shown}{tiles}"


@lru_cache(KNOWN)
def _inside(frame: Frame, grid: tuple[int, int]) -> np.ndarray:
    coverage = Image.fromarray(frame.pixels().astype(np.float32))
    shares = np.asarray(coverage.resize(grid[::-1], Image.Resampling.BOX))
    if not shares.max() > 0:
        size = "{} × {} pixels".format(*frame.image)
        raise DataError(f"nothing of an image of {size} is in the region: draw a larger one, or leave such images out")
    found = shares >= min(HALF, float(shares.max())) - ROUNDING
    found.setflags(write=False)
    return found
