"""Pixel AUROC, AP and AUPRO of a test set: exact by sorting, and by the usual loop over thresholds."""

import time
from typing import Any

import numpy as np
from scipy import ndimage

from llbnad.evaluation.metrics import PixelScores

SIDE = 224


def _maps(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return smooth maps and masks. Every other mask has two regions."""
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for index in range(count):
        mask = np.zeros((SIDE, SIDE), bool)
        if index % 2:
            mask[30:60, 40:90] = mask[150:165, 100:130] = True
        noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 4)
        maps.append((noise + 0.1 * ndimage.gaussian_filter(mask.astype(float), 4)).astype(np.float32))
        masks.append(mask)
    return maps, masks


def ours(images: int) -> dict[str, Any]:
    """Measure `llbnad.evaluation.metrics`."""
    maps, masks = _maps(images)
    started = time.perf_counter()
    collected = PixelScores()
    for one, mask in zip(maps, masks, strict=True):
        collected.add_defects(one, mask)
    for one, mask in zip(maps, masks, strict=True):
        collected.add_normal(one, mask)
    found = collected.result()
    assert found is not None
    return {"seconds": time.perf_counter() - started, "aupro": found.aupro}


def usual(images: int, thresholds: int) -> dict[str, Any]:
    """Measure AUPRO by thresholds, region by region, as benchmark code does it, and AUROC and AP by scikit-learn."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    maps, masks = _maps(images)
    started = time.perf_counter()
    values, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    roc_auc_score(labels, values), average_precision_score(labels, values)
    normal = values[~labels]
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        found, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [one[found == k + 1] for k in range(number)]
    cuts = np.linspace(values.max(), values.min(), thresholds)
    false = np.array([(normal > cut).mean() for cut in cuts])
    overlap = np.array([np.mean([(region > cut).mean() for region in regions]) for cut in cuts])
    inside = false <= 0.3
    end = np.interp(0.3, false, overlap)
    aupro = np.trapezoid(np.r_[overlap[inside], end], np.r_[false[inside], 0.3]) / 0.3
    return {"seconds": time.perf_counter() - started, "aupro": float(aupro)}
