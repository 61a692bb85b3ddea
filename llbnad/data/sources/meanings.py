"""The meaning of folders and labels: a table, kept beside the manifest, of what a source takes their images for."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from llbnad.data.manifest import NORMAL
from llbnad.errors import printable


@dataclass(frozen=True)
class Meaning:
    """A folder or a label, and what its images are taken for."""

    place: str  # a folder of the root, with a slash at the end, or `label` and the label
    images: int
    meaning: str  # `meaning_of`, or held out


def meaning_of(label: str | None, split: str | None) -> str:
    """Return what an image of this label and split is taken for: `train, normal`, `unlabelled` …"""
    meaning = {None: "unlabelled", NORMAL: "normal"}.get(label, "defects")
    return f"{split}, {meaning}" if split else meaning


def by_label(images: Iterable[tuple[str | None, str | None]]) -> list[Meaning]:
    """Return the meaning of each label, for sources that go by no folder; `images` are pairs of label and split."""
    found = Counter((f"label {label or '(empty)'}", meaning_of(label, split)) for label, split in images)
    return [Meaning(place, count, meaning) for (place, meaning), count in sorted(found.items())]


def table(meanings: Sequence[Meaning]) -> pd.DataFrame:
    """Return meanings as a table with the columns place, images, meaning."""
    rows = [(printable(one.place), one.images, one.meaning) for one in meanings]
    return pd.DataFrame(rows, columns=["place", "images", "meaning"])
