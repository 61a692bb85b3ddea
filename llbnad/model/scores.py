"""Scores of images, one number per image. Every score travels with its image id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from llbnad.errors import DataError, IdentityError
from llbnad.utils.files import write_parquet

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("score", pa.float32(), nullable=False)])


@dataclass(frozen=True)
class Scores:
    """Anomaly scores of distinct images. Higher is more anomalous; the unit is the detector's.

    Raises:
        IdentityError: an image id occurs twice, or there are not as many scores as ids.
        DataError: a score is not finite.
    """

    image_ids: tuple[str, ...]
    values: np.ndarray  # (N,) float32

    def __post_init__(self) -> None:
        if len(self.image_ids) != len(self.values):
            raise IdentityError(f"{len(self.values)} scores for {len(self.image_ids)} image ids")
        if len(set(self.image_ids)) != len(self.image_ids):
            raise IdentityError("an image id is scored twice")
        if not np.isfinite(self.values).all():
            index = int(np.flatnonzero(~np.isfinite(self.values))[0])
            raise DataError(
                f"image {self.image_ids[index]} has the score {self.values[index]}; expected a finite number"
            )

    def series(self) -> pd.Series:
        """Return the scores, indexed by image id and sorted by it."""
        return pd.Series(self.values, index=pd.Index(self.image_ids, name="image_id"), name="score").sort_index()

    def of(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the scores (N,) in the order of `image_ids`.

        Raises:
            IdentityError: an image has no score.
        """
        series = self.series()
        unknown = [image_id for image_id in image_ids if image_id not in series.index]
        if unknown:
            raise IdentityError(f"{len(unknown)} images have no score, first {unknown[0]}")
        return series.loc[list(image_ids)].to_numpy()

    def write(self, path: Path) -> None:
        """Write the scores as parquet (image_id, score), sorted by image id."""
        write_parquet(self.series().reset_index(), path, SCHEMA)

    @classmethod
    def read(cls, path: Path) -> "Scores":
        """Read the scores that `write` wrote."""
        frame = pd.read_parquet(path)
        return cls(tuple(frame["image_id"]), frame["score"].to_numpy(np.float32))
