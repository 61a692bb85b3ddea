"""The split of the training images into T disjoint subsets by sample (stage 1 of arXiv 2508.07441).

Difference: the paper deals images out at random positions. Here a hash of the sample's id and the seed decides the
subset. All views of a sample stay together, and the order of the table does not matter. From 100 samples on, a sample
keeps its subset when others arrive, as long as T stays, and sizes are equal only on average. Fewer samples are dealt
out evenly (`llbnad.utils.hashing.deal`).
"""

import numpy as np
import pandas as pd

from llbnad.config import Partition, Subsets
from llbnad.errors import TooFewImagesError
from llbnad.utils.hashing import deal

FEW = 200  # samples
MANY, USUAL = 10, 5  # T below `FEW` samples, and from there on


def count_subsets(subsets: Subsets, samples: int) -> int:
    """Return T.

    `auto` is `MANY` for fewer than `FEW` samples, and `USUAL` from there on. Sub-models that leave a tenth out instead
    of a fifth rank better where samples are few, and no better where they are not (docs/results.md).

    Args:
        subsets: the setting, T or `auto`.
        samples: number of training samples.
    """
    if subsets != "auto":
        return subsets
    return min(MANY, max(samples, 2)) if samples < FEW else USUAL


def assign_subsets(train: pd.DataFrame, subsets: Subsets, seed: int) -> pd.Series:
    """Return the subset 0 … T-1 of each training image. None is empty, so T is the largest number and one.

    Args:
        train: manifest rows of the training images.
        subsets: T, or `auto`.
        seed: seed of the split.

    Returns:
        integers, indexed by image id.

    Raises:
        TooFewImagesError: a subset would be empty.
    """
    samples = train["sample_id"].nunique()
    num_subsets = count_subsets(subsets, samples)
    numbers = train["sample_id"].map(deal(train["sample_id"], num_subsets, seed, "partition"))
    empty = num_subsets - numbers.nunique()
    if empty:
        if subsets == "auto":
            raise TooFewImagesError(f"{samples} training sample is too few: 2 are needed, better some hundred")
        fewer = "--subsets 2 or " if samples >= 2 else ""
        raise TooFewImagesError(
            f"{samples} different training samples leave {empty} of {num_subsets} subsets empty: use {fewer}more images"
        )
    return pd.Series(
        numbers.to_numpy(), index=pd.Index(train["image_id"], name="image_id"), name="subset", dtype="int64"
    )


def subset_numbers(subsets: pd.Series) -> range:
    """Return the numbers 0 … T-1 of the subsets that `assign_subsets` made."""
    return range(int(subsets.max()) + 1)


def training_masks(subsets: pd.Series, num_subsets: int, partition: Partition) -> np.ndarray:
    """Return which sub-model learns from which image.

    Args:
        subsets: (N,) subset of each image. Some may be missing here.
        num_subsets: T.
        partition: with `disjoint`, sub-model k learns from subset k (arXiv 2508.07441). With `leave_out`, it learns
            from all subsets but k, as in cross-validation. This takes T-1 times as many training images, and each
            sub-model sees more normal images and more defects.

    Returns:
        (N, T) bool.
    """
    own = subsets.to_numpy()[:, None] == np.arange(num_subsets)
    return own if partition == "disjoint" else ~own
