"""Intervals for differences of I-AUROC, by a paired bootstrap over seeds and test images.

Two methods are compared on the same seeds and the same test images, so both get the same weights in every draw. A draw
weighs samples by Exp(1) (Bayesian bootstrap: Rubin, Annals of Statistics 1981), the same sample alike in every seed
that tests it, and takes n - 1 of n seeds with replacement (Rao & Wu, JASA 1988: n of n would understate the variance).
Both factors at once, as in the pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007), make intervals too wide
rather than too narrow. With one seed, the interval is over test images alone.

An interval is that of one comparison: of twenty differences that are nothing, one lies outside of it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llbnad.utils.hashing import stable_number

DRAWS = 1000
LEVEL = 0.95  # of the interval
NOISE, BETTER, WORSE = "noise", "better", "worse"
ROW = ("seed", "image_id", "sample_id", "anomalous")  # columns of a score table that are neither key nor method


def differences(
    scores: pd.DataFrame, keys: Sequence[str], base: str, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compare the I-AUROC of every method with that of `base`, in each group of `keys`.

    Args:
        scores: one row per key, seed and test image: `keys`, `ROW`, and one column of scores per method. A method
            without scores in a group is left out of it.
        keys: columns that name a group, e.g. data set, detector and α.
        base: the method to compare with.
        draws: number of draws of the bootstrap.
        seed: seed of the draws.

    Returns:
        keys, method, difference (mean over seeds), difference_low, difference_high, significance (`BETTER` or `WORSE`
        where the interval leaves 0 out, otherwise `NOISE`), seeds.
    """
    found = []
    for key, group in scores.groupby(list(keys), sort=True):
        for method, (point, drawn) in _drawn(group, keys, base, draws, seed).items():
            row = dict(zip(keys, key, strict=True)) | {"method": method}
            found.append(row | _interval(point, drawn) | {"seeds": group["seed"].nunique()})
    names = [*keys, "method", "difference", "difference_low", "difference_high", "significance", "seeds"]
    return pd.DataFrame(found, columns=names)


def mean_differences(
    scores: pd.DataFrame, keys: Sequence[str], over: str, base: str, draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Compare the mean I-AUROC over the groups of one key, e.g. over data sets, which share no image.

    Args:
        scores: as in `differences`.
        keys: as in `differences`.
        over: the key to average over.
        base: the method to compare with.
        draws: number of draws of the bootstrap.
        seed: seed of the draws.

    Returns:
        the columns of `differences`, `over` being the number of groups; a method that lacks in a group is left out.
    """
    others = [key for key in keys if key != over]
    found = []
    for key, part in scores.groupby(others, sort=True):
        groups = [_drawn(group, keys, base, draws, seed) for _, group in part.groupby(over, sort=True)]
        for method in groups[0]:
            if all(method in group for group in groups):
                point = float(np.mean([group[method][0] for group in groups]))
                drawn = np.mean([group[method][1] for group in groups], axis=0)
                row = dict(zip(others, key, strict=True)) | {over: len(groups), "method": method}
                found.append(row | _interval(point, drawn) | {"seeds": part["seed"].nunique()})
    return pd.DataFrame(found)


def _drawn(
    group: pd.DataFrame, keys: Sequence[str], base: str, draws: int, seed: int
) -> dict[str, tuple[float, np.ndarray]]:
    """Return the difference to `base` of each other method: the mean over seeds, and the draws (B,)."""
    methods = [name for name in group.columns if name not in (*keys, *ROW) and group[name].notna().all()]
    if base not in methods:
        return {}
    named = "/".join(str(group[key].iloc[0]) for key in keys)  # groups draw independently
    random = np.random.default_rng(stable_number(named, seed, "bootstrap"))
    samples = np.unique(group["sample_id"].to_numpy())
    weights = random.exponential(size=(draws, len(samples)))  # (B, S)
    parts = [part for _, part in group.groupby("seed", sort=True)]
    count = len(parts)
    times = random.multinomial(max(1, count - 1), np.full(count, 1 / count), size=draws)  # (B, seeds)

    aurocs: dict[str, list[tuple[float, np.ndarray]]] = {method: [] for method in methods}
    for part in parts:
        anomalous = part["anomalous"].to_numpy(bool)
        of_image = weights[:, np.searchsorted(samples, part["sample_id"].to_numpy())]  # (B, images)
        for method in methods:
            values = part[method].to_numpy()
            wins = _wins(values[~anomalous], values[anomalous])
            normal, defects = of_image[:, ~anomalous], of_image[:, anomalous]
            drawn = ((normal @ wins) * defects).sum(axis=1) / (normal.sum(axis=1) * defects.sum(axis=1))
            aurocs[method].append((float(wins.mean()), drawn))

    found = {}
    for method in methods:
        if method != base:
            gains = [one[0] - other[0] for one, other in zip(aurocs[method], aurocs[base], strict=True)]
            drawn = np.stack([one[1] - other[1] for one, other in zip(aurocs[method], aurocs[base], strict=True)])
            found[method] = float(np.mean(gains)), (times.T * drawn).sum(axis=0) / times.sum(axis=1)
    return found


def _wins(normal: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Return whether each anomalous score (m,) lies above each normal one (n,): (n, m), with a half for a tie."""
    return (anomalous > normal[:, None]) + 0.5 * (anomalous == normal[:, None])


def _interval(point: float, drawn: np.ndarray) -> dict[str, object]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    verdict = BETTER if low > 0 else WORSE if high < 0 else NOISE
    return {"difference": point, "difference_low": low, "difference_high": high, "significance": verdict}
