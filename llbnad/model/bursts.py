"""Images that follow each other by name: a burst of one part, or one batch, which a camera takes in a row.

Calibration holds images out at random. If neighbours are alike, a held-out image finds its neighbours among those that
were learnt and looks more normal than the next part will, so the threshold comes out too low. This asks the scores
themselves: whole bursts of `LENGTH` samples are held out, and their images are scored again. Where images are
independent, as many as before score high; where neighbours are alike, more do. It needs no label and no group, only
names in the order of the camera, and costs one training.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

LENGTH = 10  # samples of a burst that is held out
FEWEST_BURSTS = 5  # bursts; below, nothing can be said
HIGH = 0.2  # share of calibration scores that counts as high; of rarer ones, a fifth of the images holds too few
CHANCE = 0.01  # how often independent images may look alike


@dataclass(frozen=True)
class Bursts:
    """How many of the same images score high, held out alone and held out with their neighbours."""

    tested: int
    alone: int
    together: int
    held_out_together: bool = False  # whether the threshold is from folds that held `LENGTH` in a row out together

    @property
    def alike(self) -> bool:
        """Whether more images score high with their neighbours held out than chance explains.

        Odd images come in bursts too, so what is compared with is what the same images did alone, if that is more.
        """
        from scipy import stats

        return bool(stats.binom.sf(self.together - 1, self.tested, self._expected / self.tested) < CHANCE)

    @property
    def times(self) -> float:
        """How many times as many images of a new burst are above that level as the threshold promises."""
        return self.together / self._expected

    @property
    def _expected(self) -> float:
        """Images that would score high if neighbours were not alike."""
        return max(self.alone, HIGH * self.tested)

    def describe(self) -> str:
        """Describe in one line what was found, and what was done or is to be done about it."""
        found = (
            f"images that follow each other by name are alike: of {self.tested} that were tried, {self.together} score "
            f"among the highest {HIGH:.0%} where the detector has not learnt their neighbours either, {self.alone} "
            "where it has. "
        )
        if self.held_out_together:
            return (
                f"{found}The threshold is therefore from folds that hold {LENGTH} in a row out together; the column "
                "`group`, with the part of each image, places it more exactly"
            )
        return (
            f"{found}On new parts expect at least {self.times:.1f} times as many false positives as promised: name the "
            "part of each image in the column `group`, or leave calibration.burst at auto"
        )

    def content(self) -> dict[str, int | bool]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def restore(cls, content: Mapping[str, Any] | None) -> "Bursts | None":
        """Return the result of `content`, or None for None, as in files of earlier releases."""
        return None if content is None else cls(**content)


def bursts_of(images: pd.DataFrame, length: int) -> pd.Series:
    """Return the burst 0, 1, … of each image, indexed as `images`: `length` samples each, in the order of paths.

    Numbers in a path count as numbers, so img_10 follows img_9. A sample's place is that of its first image.
    """
    first = images.groupby("sample_id")["path"].min()
    order = sorted(first.items(), key=lambda one: _natural(one[1]))
    places = {sample: place // length for place, (sample, _) in enumerate(order)}
    return images["sample_id"].map(places)


def _natural(path: str) -> list[Any]:
    """Return what a path is sorted by: text and number in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", path))]
