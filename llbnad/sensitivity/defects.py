"""Synthetic defects, drawn on an image at its original resolution, before any encoder sees it.

| kind      | shape, `size` in pixels of the image         | what `contrast` c changes                              |
|-----------|----------------------------------------------|--------------------------------------------------------|
| `scratch` | a straight line, size long and size / 6 wide | its grey values by 255 c                               |
| `blot`    | an ellipse with a soft edge, size long       | its grey values by up to 255 c                         |
| `missing` | a ragged spot, up to size wide               | flat: the mean colour around it, changed by 255 c      |
| `noise`   | a square, size wide                          | adds grey noise with a standard deviation of 255 c     |
| `swap`    | a disc, size wide, from elsewhere, turned    | weight of the other place: 5 c, and whole from 0.2 on  |

Grey values change towards black where the surroundings are bright, and towards white where they are dark. Place, angle
and form follow from image id, kind and seed alone, and from the region of interest where there is one, so that a defect
grows in its place: curves over sizes are smooth, and two detectors see the same pixels. These are no pictures of real
defects. They make detectors comparable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llbnad.errors import ConfigError
from llbnad.sensitivity.places import Places
from llbnad.utils.hashing import stable_number

KINDS = ("scratch", "blot", "missing", "noise", "swap")
SLENDER = 6  # length of a scratch in its widths
WHOLE = 0.2  # contrast from which on a swapped patch covers all below it


@dataclass(frozen=True)
class Pasted:
    """An image with a defect."""

    image: np.ndarray  # (H, W, 3) uint8
    mask: np.ndarray  # (H, W) bool: the pixels of the defect; no other pixel has changed


def dimensions(kind: str, size: int) -> tuple[int, ...]:
    """Return the dimensions of a defect in pixels: length and width of a scratch, else its largest width."""
    return (size, max(1, round(size / SLENDER))) if kind == "scratch" else (size,)


def draw(
    image: np.ndarray,
    image_id: str,
    kind: str,
    size: int,
    contrast: float,
    seed: int = 0,
    places: Places | None = None,
) -> Pasted:
    """Draw one defect on a copy of an image.

    Args:
        image: (H, W, 3) uint8.
        image_id: id of the image. With kind and seed it decides on place, angle and form.
        kind: one of `KINDS`.
        size: size in pixels, at least 1. What does not fit into the image is cut off.
        contrast: in [0, 1].
        seed: gives other places.
        places: where defects may lie in an image of this size; None: anywhere.

    Raises:
        ConfigError: the kind is unknown, or a number is out of its range.
    """
    if kind not in KINDS or size < 1 or not 0 <= contrast <= 1:
        raise ConfigError(
            f"a synthetic defect is one of {', '.join(KINDS)}, with a size of at least 1 px and a contrast in [0, 1]; "
            f"got {kind!r}, {size} px, {contrast:g}"
        )
    random = np.random.default_rng(stable_number(f"{image_id} {kind}", seed, "synthetic defect"))
    place, angle, form, elsewhere = random.random(2), random.random() * np.pi, random.random(3), random.random((8, 2))
    height, width = image.shape[:2]

    def centre_at(share: np.ndarray) -> tuple[int, int]:
        return _inside(share, size, (height, width)) if places is None else places.centre(share, size)

    centre = centre_at(place)
    margin = max(3, size // 4)  # of the surroundings, in pixels
    rows, columns = (
        slice(max(0, at - size // 2 - margin), min(length, at + size // 2 + margin + 1))
        for at, length in zip(centre, (height, width), strict=True)
    )
    down, across = np.ogrid[rows, columns]
    weight = _weight(kind, size, down - centre[0], across - centre[1], angle, form)  # (h, w) in [0, 1]
    old = image[rows, columns].astype(np.float32)
    around = old[weight == 0] if (weight == 0).any() else old.reshape(-1, 3)
    mean = around.mean(axis=0)  # (3,)
    step = 255 * contrast * (-1 if mean.mean() >= 128 else 1)

    if kind in ("scratch", "blot"):
        new = old + step
    elif kind == "missing":
        new = np.broadcast_to(mean + step, old.shape)
    elif kind == "noise":
        new = old + 255 * contrast * random.standard_normal(old.shape[:2])[..., None]
    else:
        new = _other_place(image, centre, [centre_at(one) for one in elsewhere], rows, columns)
        weight = weight * min(1, contrast / WHOLE)
    result, mask = image.copy(), np.zeros((height, width), bool)
    result[rows, columns] = (old + weight[..., None] * (new - old)).round().clip(0, 255).astype(np.uint8)
    mask[rows, columns] = weight > 0
    return Pasted(result, mask)


def _inside(share: np.ndarray, size: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return row and column of a centre, so that a defect of `size` lies inside an image of `shape` if it fits."""
    free = [max(0, length - size) for length in shape]
    row, column = (int(one * (room + 1)) + min(size, length) // 2
                   for one, room, length in zip(share, free, shape, strict=True))  # fmt: skip
    return min(row, shape[0] - 1), min(column, shape[1] - 1)


def _weight(kind: str, size: int, down: np.ndarray, across: np.ndarray, angle: float, form: np.ndarray) -> np.ndarray:
    """Return how much of each pixel is the defect's, (h, w) in [0, 1].

    Args:
        kind: one of `KINDS`.
        size: size in pixels.
        down: (h, 1) rows below the centre.
        across: (1, w) columns right of the centre.
        angle: of the longer axis, in radians.
        form: (3,) numbers in [0, 1] that decide on the form.
    """
    along = across * np.cos(angle) + down * np.sin(angle)
    beside = down * np.cos(angle) - across * np.sin(angle)
    radius = size / 2
    if kind == "scratch":
        length, wide = dimensions(kind, size)
        outside = np.maximum(np.abs(along) - length / 2, np.abs(beside) - wide / 2)
    elif kind == "blot":
        short = radius * (0.6 + 0.4 * form[0])
        return np.clip(1.5 * (1 - (along / radius) ** 2 - (beside / short) ** 2), 0, 1)
    elif kind == "missing":
        bearing = np.arctan2(beside, along)
        ragged = 0.8 + 0.12 * np.sin(3 * bearing + 6.28 * form[1]) + 0.08 * np.sin(7 * bearing + 6.28 * form[2])
        outside = np.hypot(along, beside) - radius * ragged
    elif kind == "noise":
        low = (size - 1) // 2
        return ((down >= -low) & (down < size - low) & (across >= -low) & (across < size - low)).astype(np.float64)
    else:
        outside = np.hypot(along, beside) - radius
    return np.clip(0.5 - outside, 0, 1)  # an edge of one pixel


def _other_place(
    image: np.ndarray,
    centre: tuple[int, int],
    elsewhere: Sequence[tuple[int, int]],
    rows: slice,
    columns: slice,
) -> np.ndarray:
    """Return the pixels around another place, turned by 90°, in the form of image[rows, columns]; (h, w, 3) float32.

    The place is the farthest of `elsewhere`. Where the turned patch would leave the image, its edge pixel is repeated.
    """
    row, column = max(elsewhere, key=lambda one: (one[0] - centre[0]) ** 2 + (one[1] - centre[1]) ** 2)
    down, across = np.ogrid[rows, columns]
    from_row = np.clip(row + (across - centre[1]), 0, image.shape[0] - 1)  # (1, w): columns become rows
    from_column = np.clip(column - (down - centre[0]), 0, image.shape[1] - 1)  # (h, 1)
    return image[from_row, from_column].astype(np.float32)
