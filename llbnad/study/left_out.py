"""A default for each data set, chosen on the other data sets: leave-one-set-out.

A policy that was chosen on a set says little about new sets when it is reported on it. Here the number of a set comes
from the candidate that the other sets would have chosen, by a rule that was fixed beforehand: among the candidates that
harm none of them, the one that closes most of their gaps. One candidate is chosen for all detectors, as a default is.
"""

from collections.abc import Sequence

import pandas as pd

from llbnad.study.table_summary import gap_over_sets

MOST_HARM = {"least_clean": -0.005, "least_noisy": -0.003}  # I-AUROC against `none`, on any set, in the mean of seeds


def choose(closed: pd.DataFrame, candidates: Sequence[str]) -> str:
    """Return the candidate that the rule chooses.

    If every candidate harms a set, the rule chooses the one that exceeds the limits of harm by the least.

    Args:
        closed: result of `table_summary.gap_closed` for the sets to choose on.
        candidates: policies to choose among; the first of equals wins.
    """
    over = gap_over_sets(closed[closed["policy"].isin(candidates)])
    excess = sum((limit - over[name]).clip(lower=0) for name, limit in MOST_HARM.items())
    merit = over.assign(excess=excess).groupby("policy").agg(excess=("excess", "max"), closed=("closed", "mean"))
    merit = merit.loc[[name for name in candidates if name in merit.index]]
    best = merit.sort_values(["excess", "closed"], ascending=[True, False], kind="stable")
    return str(best.index[0])


def left_out(closed: pd.DataFrame, candidates: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `closed` that each data set gets from the candidate chosen without it.

    Args:
        closed: result of `table_summary.gap_closed`.
        candidates: policies to choose among.

    Returns:
        the columns of `closed`, `policy` being the chosen one; no row if there are fewer than two data sets.
    """
    parts = []
    for dataset in closed["dataset"].unique():
        others = closed[closed["dataset"] != dataset]
        if len(others):
            chosen = choose(others, candidates)
            parts.append(closed[(closed["dataset"] == dataset) & (closed["policy"] == chosen)])
    return pd.concat(parts, ignore_index=True) if parts else closed.iloc[:0]
