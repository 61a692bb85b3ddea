"""The window by which values above 8 bits become grey: low is black, high is white, and what lies outside is clipped.

Images of 8 bits are never changed. All deeper images of a data set (16-bit and 32-bit integers, floats) are read by one
window, so that two images of one line stay comparable, and a trained model keeps the window of its images.

| setting `intensity` | window                                                                                       |
|---------------------|----------------------------------------------------------------------------------------------|
| `[low, high]`       | as given: [0, 4095] for a 12-bit camera                                                      |
| `full`              | 0 … 65,535 if an image holds integers, else 0 … 1                                            |
| `auto`              | from 0 to the first step that the 99.9th percentile of the data set's values does not exceed |

Steps are the largest values of 8, 10, 12, 14, 16, 20, 24 and 32 bits; below 255, if all images are floats, the powers
of two from 1 on. The rule of `auto` looks at the finite values of all images alike, one image counting as much as
another, and leaves out the largest and the smallest value of each image. A hot pixel, NaN and ±inf therefore do not
move the window. Low is not 0 but minus such a step if the 0.1th percentile lies below −1/16 of high: noise around a
subtracted dark image is clipped, and signed values are kept.
"""

import numpy as np

from llbnad.config import Intensity, Window

INTEGER_STEPS = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16, 20, 24, 32))
FLOAT_STEPS = (*(float(2**power) for power in range(8)), *INTEGER_STEPS)
FULL_INTEGERS, FULL_FLOATS = (0.0, 65535.0), (0.0, 1.0)
HIGHEST, LOWEST = 0.999, 0.001  # quantiles of the values of a data set
NEGATIVE = 1 / 16  # share of high that values below 0 must exceed to count
SLOTS = 1000  # quantiles that stand for an image
MOST_VALUES = 1 << 20  # values looked at per image
FEW_VALUES = 100  # below, no value of an image is left out
NARROW = 0.05  # share of the window that values should fill at least


def quantiles(values: np.ndarray) -> np.ndarray:
    """Return the quantiles that stand for the finite values of an image, ascending; empty if none is finite."""
    flat = values.ravel()
    flat = flat[:: -(-flat.size // MOST_VALUES)]
    known = np.sort(flat[np.isfinite(flat)]).astype(np.float64)
    if known.size >= FEW_VALUES:
        known = known[1:-1]
    if not known.size:
        return known
    return known[np.round((np.arange(SLOTS) + 0.5) / SLOTS * (known.size - 1)).astype(int)]


def bounds(images: list[np.ndarray]) -> tuple[float, float]:
    """Return the 0.1th and the 99.9th percentile of a data set, given by the quantiles of its images.

    There must be at least one value.
    """
    pooled = np.concatenate(images)
    low, high = np.quantile(pooled, LOWEST, method="higher"), np.quantile(pooled, HIGHEST, method="lower")
    return float(low), float(high)


def auto_window(low: float, high: float, floats: bool) -> Window:
    """Return the window of the rule `auto` for the percentiles of `bounds`. `floats`: all images are floats."""
    steps = FLOAT_STEPS if floats else INTEGER_STEPS
    top = _step(high, steps)
    return (-_step(-low, steps) if -low > NEGATIVE * top else 0.0), top


def fixed_window(intensity: Intensity, floats: bool) -> Window | None:
    """Return the window of a setting that does not look at the values; None for `auto`."""
    if intensity == "auto":
        return None
    if intensity == "full":
        return FULL_FLOATS if floats else FULL_INTEGERS
    return intensity


def as_grey(values: np.ndarray, window: Window, white_is_zero: bool = False) -> np.ndarray:
    """Return values (H, W) or (H, W, C) of any type as uint8: low is 0, high is 255, NaN is 0."""
    low, high = window
    darkest = high if white_is_zero else low
    known = np.nan_to_num(values.astype(np.float32), nan=darkest, posinf=high, neginf=low)
    grey = ((known.clip(low, high) - low) * (255 / (high - low))).round().astype(np.uint8)
    return 255 - grey if white_is_zero else grey


def share_outside(values: np.ndarray, window: Window) -> float:
    """Return the share of values that lie outside the window or are not numbers, in [0, 1]."""
    return 1 - float(np.mean((values >= window[0]) & (values <= window[1])))


def shown(window: Window) -> str:
    """Return a window as people write it: `0 … 4,095`."""
    return " … ".join(f"{edge:,.10g}" for edge in window)


def _step(value: float, steps: tuple[float, ...]) -> float:
    return next((step for step in steps if value <= step), value)
