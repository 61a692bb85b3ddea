"""An encoder of large canvases: it encodes one tile after another and lays the tiles' maps together.

Where tiles overlap, their features are blended: the weight of a tile falls linearly towards its edge, because the
network sees least there. Weights are products of one weight per row and one per column, and add up to 1. A tile is
shifted by whole cells of every layer, so that no feature is moved or resized. Prefix tokens are the mean over the
tiles.
"""

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
        side, (rows, columns) = self.canvas.config.input_size, self.canvas.grid
        step = side - self.canvas.overlap
        corners = [(row * step, column * step) for row in range(rows) for column in range(columns)]
        squares = np.stack([image[top : top + side, left : left + side] for top, left in corners])
        found = self.encoder.encode(squares)
        maps = [self._stitched(layer) for layer in found.maps]
        return maps, [prefix.astype(np.float32).mean(axis=0).astype(np.float16) for prefix in found.prefixes]

    def _stitched(self, tiles: np.ndarray) -> np.ndarray:
        """Lay the tiles (rows · columns, C, h, w) of a layer together: (C, H, W) float16."""
        (rows, columns), (count, channels, side, _) = self.canvas.grid, tiles.shape
        shared, remainder = divmod(self.canvas.overlap * side, self.canvas.config.input_size)
        if remainder:
            raise ConfigError(
                f"encoder.overlap {self.canvas.config.overlap:g}: {self.canvas.overlap} px are no whole number of "
                f"cells in a layer of {side} cells per {self.canvas.config.input_size} px: use 0 or another overlap"
            )
        if count == 1:
            return tiles[0]
        step = side - shared
        down, across = (_weights(number, side, shared) for number in (rows, columns))
        whole = np.zeros((channels, side + (rows - 1) * step, side + (columns - 1) * step), np.float32)
        for number, tile in enumerate(tiles):
            row, column = divmod(number, columns)
            weight = down[row][:, None] * across[column]  # (h, w)
            place = slice(row * step, row * step + side), slice(column * step, column * step + side)
            whole[:, *place] += weight * tile.astype(np.float32)
        return whole.astype(np.float16)


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
