"""The one colour scale of all heat maps, anchored at the value from which an image is suspicious.

Below that limit the colours are calm: none at the low end, a pale blue just below the limit. Heat begins at the limit,
with yellow, and ends in dark red. A clean set therefore looks clean, and an image looks the same whatever other images
it is shown with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

REACH = 0.5  # of the limit: the scale shows this much below and above it
HEAT_RANGE = (50.0, 99.5)  # percentiles of maps that span the scale where there is no limit
BLOCK = 512  # side of the part of a picture that is coloured at once: some 80 bytes per pixel
OF_EACH = "threshold of each"  # the limit of maps that are divided by their detectors' thresholds
SHADES = 4096  # so many that a rounding error moves no pixel by more than a grey value

# place on the scale, red, green, blue, opacity; the limit is at 0.5
STOPS = (
    (0.00, 60, 120, 200, 0.00),
    (0.49, 60, 120, 200, 0.30),
    (0.52, 255, 225, 60, 0.50),
    (0.70, 250, 140, 30, 0.60),
    (1.00, 170, 0, 30, 0.72),
)


@dataclass(frozen=True)
class HeatScale:
    """Values of a patch map, and how they are shown."""

    low: float  # and below: no colour
    limit: float  # heat begins here
    high: float  # and above: hottest
    meaning: str  # what the limit is, in a few words; empty if there is none and the scale is the maps' own

    def places(self, values: np.ndarray) -> np.ndarray:
        """Return the places of values on the scale, in [0, 1]; the limit is at 0.5."""
        span = max(self.high - self.low, 1e-12)
        return np.asarray(((values.astype(np.float32) - self.low) / span).clip(0, 1))

    def caption(self) -> str:
        """Return what the scale says, in one line."""
        if not self.meaning:
            return "colours: the range of these maps, for want of a threshold"
        if self.meaning == OF_EACH:
            return f"each map in units of its detector's threshold: calm below {self.limit:.4g}, heat above"
        return f"calm below the {self.meaning} ({self.limit:.4g}), heat above"

    def shown(self) -> dict[str, float | str]:
        """Return what a page says beside the bar: the three values, and the caption."""
        return {"low": self.low, "limit": self.limit, "high": self.high, "caption": self.caption()}


def heat_scale(limit: float | None, maps: Sequence[np.ndarray], meaning: str = "threshold") -> HeatScale:
    """Return the scale anchored at a limit.

    Args:
        limit: value from which an image is suspicious, in the unit of the maps; None if there is none.
        maps: patch maps, which span the scale if there is no limit or if it is not above 0.
        meaning: what the limit is, in a few words.
    """
    if limit is not None and limit > 0:
        return HeatScale((1 - REACH) * limit, limit, (1 + REACH) * limit, meaning)
    if not maps:
        return HeatScale(0.0, 0.5, 1.0, meaning) if limit is None else HeatScale(limit - 1, limit, limit + 1, meaning)
    values = np.concatenate([np.ravel(heat).astype(np.float64) for heat in maps])
    low, high = (float(value) for value in np.percentile(values, HEAT_RANGE))
    if limit is None:
        return HeatScale(low, (low + high) / 2, high, "")
    span = max(high - limit, limit - low, 1e-12)
    return HeatScale(limit - span, limit, limit + span, meaning)


def overlay(image: np.ndarray, heat: np.ndarray, scale: HeatScale) -> np.ndarray:
    """Return an image under its heat map, (H, W, 3) uint8.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat: (h, w) patch map, which is resized to the image.
        scale: how its values are shown.
    """
    from PIL import Image

    picture = Image.fromarray(image)
    lay_heat(picture, heat, scale)
    return np.asarray(picture)


def lay_heat(picture: "Image.Image", heat: np.ndarray, scale: HeatScale) -> None:
    """Lay a heat map over a picture, in place: block by block, so that a large picture needs little more memory.

    Args:
        picture: 8-bit RGB.
        heat: (h, w) patch map, which is resized to the picture.
        scale: how its values are shown.
    """
    from PIL import Image

    places = Image.fromarray(scale.places(heat))
    across, down = places.width / picture.width, places.height / picture.height
    for top in range(0, picture.height, BLOCK):
        for left in range(0, picture.width, BLOCK):
            right, bottom = min(left + BLOCK, picture.width), min(top + BLOCK, picture.height)
            box = (left * across, top * down, min(right * across, places.width), min(bottom * down, places.height))
            size = (right - left, bottom - top)
            shown = np.asarray(places.resize(size, Image.Resampling.BICUBIC, box)).clip(0, 1)
            blended = _blended(np.asarray(picture.crop((left, top, right, bottom))), shown)
            picture.paste(Image.fromarray(blended), (left, top))


def css_gradient() -> str:
    """Return the scale as stops of a CSS gradient, as it looks over grey, for the bar on a page."""
    shown = _blended(np.full((1, 41, 3), 128, np.uint8), np.linspace(0, 1, 41, dtype=np.float32)[None])[0]
    return ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in shown.tolist())


def bar(width: int, height: int) -> np.ndarray:
    """Return the scale from low to high as it looks over grey, (height, width, 3) uint8."""
    places = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return _blended(np.full((height, width, 3), 128, np.uint8), places)


def _blended(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 under the colours of `places` (H, W), in [0, 1]."""
    colour, transparency = _shades()
    shade = (places * (SHADES - 1)).round().astype(np.int32)
    return (image * transparency[shade] + colour[shade]).round().clip(0, 255).astype(np.uint8)


@cache
def _shades() -> tuple[np.ndarray, np.ndarray]:
    """Return colour times opacity, (SHADES, 3), and transparency, (SHADES, 1), of each place on the scale."""
    stops = np.array(STOPS, np.float64)
    where = np.linspace(0, 1, SHADES)
    red, green, blue, opacity = (np.interp(where, stops[:, 0], stops[:, column]) for column in range(1, 5))
    colour = np.stack([red, green, blue], axis=1) * opacity[:, None]
    return colour.astype(np.float32), (1 - opacity[:, None]).astype(np.float32)
