"""Detection rates of synthetic defects over their size, and the smallest size that is found."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llbnad.sensitivity.defects import KINDS, dimensions

CONFIDENCE = 0.95
CLEAN = "clean"  # in the place of the kind: the image itself
SHARES = (0.5, 0.9)  # of the images in which the smallest defect is found


def binomial_interval(found: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share (Clopper and Pearson, 1934); 0 and 1 of no image at all."""
    from scipy.stats import beta

    found, of, tail = np.asarray(found), np.asarray(of), (1 - CONFIDENCE) / 2
    low = np.where(found > 0, beta.ppf(tail, np.maximum(found, 1), of - found + 1), 0.0)
    high = np.where(found < of, beta.ppf(1 - tail, found + 1, np.maximum(of - found, 1)), 1.0)
    return low, high


def detection_rates(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the share of images in which each defect is found.

    An image that is called a defect without any drawing is left out, because what is found there is not the drawing.

    Args:
        scores: one row per drawing: image_id, kind (`CLEAN` for the image itself), size, contrast, score.
        threshold: scores above it are called defects.

    Returns:
        kind, contrast, size (pixels), images, found, rate, low, high: the 95 % interval over images.
    """
    clean = scores[scores["kind"] == CLEAN]
    passed = clean["image_id"][clean["score"] <= threshold]
    drawn = scores[(scores["kind"] != CLEAN) & scores["image_id"].isin(passed)]
    grouped = drawn.assign(found=drawn["score"] > threshold).groupby(["kind", "contrast", "size"])["found"]
    rates = grouped.agg(images="size", found="sum", rate="mean").reset_index()
    rates["low"], rates["high"] = binomial_interval(rates["found"].to_numpy(), rates["images"].to_numpy())
    order = rates["kind"].map({kind: place for place, kind in enumerate(KINDS)})
    return rates.iloc[np.lexsort((rates["size"], rates["contrast"], order))].reset_index(drop=True)


def smallest_found(rates: pd.DataFrame, kind: str, contrast: float, share: float) -> int | None:
    """Return the smallest size from which on a kind is found in at least `share` of the images; None if there is none.

    Every larger size that was drawn must be found as well.
    """
    chosen = rates[(rates["kind"] == kind) & (rates["contrast"] == contrast)].sort_values("size", ascending=False)
    found = None
    for size, rate in zip(chosen["size"], chosen["rate"], strict=True):
        if rate < share:
            break
        found = int(size)
    return found


def summary_line(rates: pd.DataFrame, contrast: float, target_fpr: float, tried: int) -> str:
    """Return one line with the smallest defect of each kind that is found in half and in 90 % of the images.

    Args:
        rates: result of `detection_rates`.
        contrast: the contrast to tell of.
        target_fpr: false-positive rate that the threshold asks for.
        tried: images drawn on, with those that are called defects without any drawing.
    """
    images = int(rates["images"].max()) if len(rates) else 0
    called = f" ({tried - images} more are called defects as they are)" if tried > images else ""
    parts = []
    for kind in rates["kind"].unique():
        sizes = [smallest_found(rates, kind, contrast, share) for share in SHARES]
        parts.append(f"{kind} {_sizes(kind, sizes)}")
    rate, step = (
        f"the threshold for {100 * target_fpr:g} % false positives",
        f"contrast {contrast:g} ({255 * contrast:.0f} grey values)",
    )
    found = ", ".join(parts) or "none could be measured"
    return f"smallest synthetic defects found in half / 90 % of {images} images{called} at {rate}, {step}: {found}"


def _sizes(kind: str, sizes: Sequence[int | None]) -> str:
    if all(size is None for size in sizes):
        return "none"
    shown = [" × ".join(map(str, dimensions(kind, size))) if size is not None else "none" for size in sizes]
    return f"{' / '.join(shown)} px"
