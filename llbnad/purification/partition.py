"""Disjoint training subsets by physical sample, stable when images are added (stage 1 of arXiv 2508.07441, T subsets).

The paper deals images out at random positions. Here a sample's subset follows from a hash of its id and the seed: all
views of one item stay together, the order of the table does not matter, and a sample keeps its subset when others
arrive. Subset sizes are therefore equal only on average.
"""

import numpy as np
import pandas as pd

from llbnad.config import Partition
from llbnad.errors import DataError
from llbnad.utils.hashing import stable_number


def assign_subsets(train: pd.DataFrame, num_subsets: int, seed: int) -> pd.Series:
    """The subset 0 … T-1 of each training image.

    Args:
        train: manifest rows of the training images.
        num_subsets: T.
        seed: of the split.

    Returns:
        integers, indexed by image id.

    Raises:
        DataError: a subset would be empty.
    """
    subsets = train["sample_id"].map(lambda sample: stable_number(sample, seed, "partition") % num_subsets)
    empty = sorted(set(range(num_subsets)) - set(subsets))
    if empty:
        samples = train["sample_id"].nunique()
        seed_too = " or another seed" if samples >= num_subsets else ""
        raise DataError(
            f"{samples} different training samples leave {len(empty)} of {num_subsets} subsets empty: "
            f"use fewer subsets, more images{seed_too}"
        )
    return pd.Series(
        subsets.to_numpy(), index=pd.Index(train["image_id"], name="image_id"), name="subset", dtype="int64"
    )


def training_masks(subsets: pd.Series, num_subsets: int, partition: Partition) -> np.ndarray:
    """Which sub-model learns from which image.

    Args:
        subsets: (N,) subset of each image.
        num_subsets: T.
        partition: `disjoint`: sub-model k learns from subset k (arXiv 2508.07441); `leave_out`: from all but subset k,
            as in cross-validation: T-1 times the training, each model knows more of what is normal and of the defects.

    Returns:
        (N, T) bool.
    """
    own = subsets.to_numpy()[:, None] == np.arange(num_subsets)
    return own if partition == "disjoint" else ~own
