"""A first look at the images of a data set above 8 bits, which decides on the window that all of them are read by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llbnad.config import Intensity, Window
from llbnad.data.decode import is_deep
from llbnad.data.images import deep_values
from llbnad.data.intensity import NARROW, auto_window, bounds, fixed_window, shown
from llbnad.errors import DataError
from llbnad.utils.prefetch import each
from llbnad.utils.progress import track

MIXED = 8  # the brightest images exceed the usual ones by this factor: perhaps two cameras, or one wrong file


@dataclass(frozen=True)
class Survey:
    """The window of a data set, and how it was found. Values are those of the images that are no masks."""

    count: int = 0  # images above 8 bits
    window: Window | None = None  # None if there is no such image
    low: float = 0.0  # 0.1th percentile of their values
    high: float = 0.0  # 99.9th percentile
    auto: bool = False
    usual: float = 0.0  # median over the images of their own 99.9th percentiles
    brightest: str = ""  # name of the image with the highest one

    def notes(self) -> list[str]:
        """Return what to know about the window, one line each."""
        if self.window is None:
            return []
        values = f"99.8 % of their values lie in {self.low:,.6g} … {self.high:,.6g}"
        how = "auto" if self.auto else "as set"
        lines = [f"intensity: {self.count} images above 8 bits are read as {shown(self.window)} ({how}; {values})"]
        if self.auto and self.usual < self.high / MIXED:
            lines.append(
                f"intensity: half of these images stay below {self.usual:,.6g}; a few, such as {self.brightest}, reach "
                f"{self.high:,.6g} and set the window, in which the others are dark: set intensity to a window "
                "[low, high], or leave these few out"
            )
        filled = (self.high - self.low) / (self.window[1] - self.window[0])
        if filled < NARROW:
            lines.append(
                f"intensity: these values fill {filled:.1%} of the window, so that few grey values are left: "
                "set intensity to a window [low, high] around them"
            )
        return lines


def survey(paths: Sequence[Path], intensity: Intensity) -> Survey:
    """Find the images above 8 bits and the window that they are read by. Unreadable files are passed over.

    Args:
        paths: image files, or pages of them.
        intensity: the setting.
    """
    deep = [path for path, found in zip(paths, each(_is_deep, paths), strict=True) if found]
    looked = list(track(each(_values, deep), "find the window", total=len(deep))) if deep else []
    known = [(path, *found) for path, found in zip(deep, looked, strict=True) if found is not None]
    if not known:
        return Survey()
    # a mask that nobody named so, or a picture of one colour, says nothing of the camera's range
    known = [one for one in known if len(np.unique(one[1])) > 2] or known
    low, high = bounds([values for _, values, _ in known])
    floats = all(is_float for _, _, is_float in known)
    given = fixed_window(intensity, floats)
    tops = {path.name: bounds([values])[1] for path, values, _ in known}
    usual, brightest = float(np.median(list(tops.values()))), max(tops, key=lambda name: tops[name])
    window = given or auto_window(low, high, floats)
    return Survey(len(deep), window, low, high, given is None, usual, brightest)


def _is_deep(path: Path) -> bool:
    try:
        return is_deep(path)
    except (OSError, ValueError):  # a name that the system cannot take
        return False


def _values(path: Path) -> tuple[np.ndarray, bool] | None:
    try:
        return deep_values(path)
    except (DataError, OSError):
        return None
