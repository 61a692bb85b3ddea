"""Cross-model consensus: one score per training image from the scores of T sub-models.

| method      | score of an image                                                              | source              |
|-------------|--------------------------------------------------------------------------------|---------------------|
| `mean`      | mean over all sub-models                                                       | arXiv 2508.07441    |
| `oof_mean`  | mean over the sub-models that did *not* train on its sample (out of fold)      | cross-validation    |
| `max`       | largest over all sub-models                                                    |                     |
| `rank_mean` | mean of its ranks in (0, 1] within each sub-model, so that no scale dominates  | Borda count         |
| `robust_mean` | `oof_mean` of scores standardised within each sub-model by median and MAD    | ours                |
| `max_var`   | largest plus standard deviation over sub-models, so that disagreement counts   | ours                |

`mean` includes the sub-model that trained on the image. To this sub-model a memorised defect looks normal. `oof_mean`
leaves it out.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from llbnad.config import Aggregation, Partition
from llbnad.errors import ConfigError, SubModelsError
from llbnad.model.scores import Scores
from llbnad.purification.partition import training_masks

COMPARABLE = 8  # fewest images that a rank correlation means something for


def score_table(per_model: Sequence[Scores], subsets: pd.Series) -> pd.DataFrame:
    """Return the scores of all sub-models in one table, aligned by image id.

    Args:
        per_model: T score sets over the same N images.
        subsets: subset 0 … T-1 of each image, indexed by image id.

    Returns:
        (N, T+1) columns `sub_model_0` … and `subset`, indexed by image id and sorted by it.

    Raises:
        SubModelsError: a sub-model did not score exactly the training images.
    """
    expected = set(subsets.index)
    for number, scores in enumerate(per_model):
        differing = expected.symmetric_difference(scores.image_ids)
        if differing:
            raise SubModelsError(
                f"sub-model {number} and the training set differ in {len(differing)} images, first {min(differing)}: "
                "let every sub-model score all training images"
            )
    table = pd.DataFrame({f"sub_model_{number}": scores.series() for number, scores in enumerate(per_model)})
    return table.assign(subset=subsets).sort_index()


def sub_model_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the sub-models' columns in a table that `score_table` made."""
    return [name for name in table.columns if name.startswith("sub_model_")]


def aggregate(table: pd.DataFrame, method: Aggregation, partition: Partition = "disjoint") -> pd.Series:
    """Return one consensus score per image.

    Args:
        table: result of `score_table`.
        method: see the table above.
        partition: which subsets the sub-models learnt from.

    Returns:
        (N,) float32 named `score`, indexed by image id.

    Raises:
        ConfigError: the method needs more sub-models than there are, or is unknown.
    """
    columns = sub_model_columns(table)
    values = table[columns].to_numpy(np.float64)  # (N, T)
    if method == "mean":
        result = values.mean(axis=1)
    elif method == "oof_mean":
        if len(columns) < 2:
            raise ConfigError("aggregation oof_mean needs at least 2 subsets, got 1: use mean")
        trained = training_masks(table["subset"], len(columns), partition)
        result = np.where(trained, 0.0, values).sum(axis=1) / (~trained).sum(axis=1)
    elif method == "robust_mean":
        from scipy.stats import median_abs_deviation

        centred = values - np.median(values, axis=0)
        spread = median_abs_deviation(values, axis=0)
        standardised = table.assign(**dict(zip(columns, (centred / np.where(spread > 0, spread, 1)).T, strict=True)))
        return aggregate(standardised, "oof_mean" if len(columns) > 1 else "mean", partition)
    elif method == "max":
        result = values.max(axis=1)
    elif method == "rank_mean":
        result = table[columns].rank(pct=True).to_numpy().mean(axis=1)
    elif method == "max_var":
        result = values.max(axis=1) + values.std(axis=1)
    else:
        raise ConfigError(f"unknown aggregation {method!r}")
    return pd.Series(result.astype(np.float32), index=table.index, name="score")


def rank_correlation(table: pd.DataFrame) -> pd.DataFrame:
    """Return Spearman's rank correlation between the sub-models' scores, (T, T)."""
    return table[sub_model_columns(table)].rank().corr()


def agreement(table: pd.DataFrame) -> float | None:
    """Return the lowest rank correlation of two sub-models i and j over the images outside the subsets i and j.

    Both have learnt these images, or neither has. On the other images a sub-model that knows an image by heart is
    compared with one that does not, which says nothing about agreement.

    Args:
        table: as `score_table` returns it.

    Returns:
        a number in [-1, 1]; 0 for constant scores; None if every pair has fewer than `COMPARABLE` such images.
    """
    columns, found = sub_model_columns(table), []
    for first, second in combinations(range(len(columns)), 2):
        others = table[~table["subset"].isin([first, second])]
        if len(others) >= COMPARABLE:
            found.append(others[columns[first]].rank().corr(others[columns[second]].rank()))
    return float(np.nan_to_num(found).min()) if found else None
