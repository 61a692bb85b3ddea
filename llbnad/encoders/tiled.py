"""An encoder of large canvases: it encodes one tile after another and lays the tiles' maps together.

Where tiles overlap, their features are blended: the weight of a tile falls linearly towards its edge, because the
network sees least there. Weights are products of one weight per row and one per column, and add up to 1. A tile is
shifted by whole cells of every layer, so that no feature is moved or resized. Prefix tokens are the mean over the
tiles.
"""

from dataclasses import dataclass

import numpy as np

from llbnad.data.canvas import Canvas
from llbnad.encoders.base import Encoded, Encodes
from llbnad.errors import ConfigError


class TiledEncoder:
    """An encoder of canvases: (B, H, W, 3) uint8 -> one map (B, C, h, w) over the canvas per layer.

    Memory: the tiles of one image in float32, beside the result in float16.

    Args:
        encoder: encodes squares.
        canvas: how the squares lie.
    """

    def __init__(self, encoder: Encodes, canvas: Canvas) -> None:
        self.encoder, self.canvas = encoder, canvas

    def encode(self, images: np.ndarray) -> Encoded:
        """Encode canvases. An image's features do not depend on the others.

        Raises:
            ConfigError: the overlap is no whole number of cells of a layer.
        """
        parts = [self._encode(image) for image in images]
        maps, prefixes = ([np.stack(layer) for layer in zip(*kind, strict=True)] for kind in zip(*parts, strict=True))
        return Encoded(maps, prefixes)

    def _encode(self, image: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        side = self.canvas.config.input_size
        squares = np.stack([image[top : top + side, left : left + side] for top, left in self.canvas.corners])
        found = self.encoder.encode(squares)
        maps = [self._stitched(layer) for layer in found.maps]
        return maps, [prefix.astype(np.float32).mean(axis=0).astype(np.float16) for prefix in found.prefixes]

    def _stitched(self, tiles: np.ndarray) -> np.ndarray:
        """Lay the tiles (rows · columns, C, h, w) of a layer together: (C, H, W) float16."""
        blend = blend_of(self.canvas, tiles.shape[2])
        if len(tiles) == 1:
            return tiles[0]
        whole = np.zeros((tiles.shape[1], *blend.size), np.float32)
        for tile, weight, (top, left) in zip(tiles, blend.weights, blend.corners, strict=True):
            place = slice(top, top + len(weight)), slice(left, left + len(weight))
            whole[:, *place] += weight * tile.astype(np.float32)
        return whole.astype(np.float16)


@dataclass(frozen=True)
class Blend:
    """How the tiles of a layer lie on the map over the canvas, in cells."""

    size: tuple[int, int]  # height and width of the map
    corners: list[tuple[int, int]]  # top and left of each tile, row by row
    weights: list[np.ndarray]  # (h, w) float32 of each tile


def blend_of(canvas: Canvas, side: int) -> Blend:
    """Return how tiles of `side` × `side` cells are laid together.

    Raises:
        ConfigError: the overlap is no whole number of cells.
    """
    shared, remainder = divmod(canvas.overlap * side, canvas.config.input_size)
    if remainder:
        raise ConfigError(
            f"encoder.overlap {canvas.config.overlap:g}: {canvas.overlap} px are no whole number of "
            f"cells in a layer of {side} cells per {canvas.config.input_size} px: use 0 or another overlap"
        )
    (rows, columns), step = canvas.grid, side - shared
    down, across = (_weights(number, side, shared) for number in (rows, columns))
    corners = [(row * step, column * step) for row in range(rows) for column in range(columns)]
    weights = [one[:, None] * other for one in down for other in across]
    return Blend((side + (rows - 1) * step, side + (columns - 1) * step), corners, weights)


def _weights(count: int, side: int, shared: int) -> list[np.ndarray]:
    """Return the weights (side,) of `count` tiles in a row that share `shared` cells with the next one."""
    rise = (np.arange(shared, dtype=np.float32) + 0.5) / max(1, shared)
    found = []
    for number in range(count):
        weight = np.ones(side, np.float32)
        if number > 0:
            weight[:shared] = rise
        if number < count - 1 and shared:
            # with an overlap of one half, every cell but those at the canvas's edge has exactly two tiles
            weight[-shared:] = rise[::-1]
        found.append(weight)
    return found
