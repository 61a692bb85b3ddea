"""Cross-model consensus: T sub-models scored every training image; make one score of them.

| method      | score of an image                                                              | source              |
|-------------|--------------------------------------------------------------------------------|---------------------|
| `mean`      | mean over all sub-models                                                       | arXiv 2508.07441    |
| `oof_mean`  | mean over the sub-models that did *not* train on its sample (out of fold)      | cross-validation    |
| `max`       | the largest                                                                    |                     |
| `rank_mean` | mean of its ranks in [0, 1] within each sub-model: no scale can dominate       | Borda count         |
| `robust_mean` | `oof_mean` of scores standardised within each sub-model by median and MAD    | ours                |
| `max_var`   | largest plus standard deviation over sub-models: disagreement counts as well   | ours                |

`mean` includes the sub-model that trained on the image, to which a memorised defect looks normal; `oof_mean` leaves it
out.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llbnad.config import Aggregation, Partition
from llbnad.errors import ConfigError, SubModelsError
from llbnad.model.scores import Scores
from llbnad.purification.partition import training_masks


def score_table(per_model: Sequence[Scores], subsets: pd.Series) -> pd.DataFrame:
    """Put the sub-models' scores beside each other, aligned by image id.

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
    """One consensus score per image.

    Args:
        table: what `score_table` returns.
        method: see the module's table.
        partition: what the sub-models learnt from.

    Returns:
        (N,) float32 named `score`, indexed by image id.
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
    """Spearman correlation between the sub-models' scores, (T, T): how far they agree."""
    return table[sub_model_columns(table)].rank().corr()
