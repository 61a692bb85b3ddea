"""Exact metrics against scikit-learn and against the usual threshold loop."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from llbnad.evaluation.metrics import PixelScores, false_positive_rates, pr_curve, ranking, roc_curve
from llbnad.evaluation.pixels import SMOOTHING, pixel_maps


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def scores(request):
    rng = np.random.default_rng(3)
    normal, anomalous = rng.normal(0, 1, 300), rng.normal(1, 1, 80)
    return (normal.round(1), anomalous.round(1)) if request.param else (normal, anomalous)


def test_image_metrics_equal_scikit_learn(scores):
    normal, anomalous = scores
    labels = np.r_[np.zeros(len(normal)), np.ones(len(anomalous))]
    values = np.r_[normal, anomalous]
    found = ranking(normal, anomalous)
    precision, recall, _ = precision_recall_curve(labels, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert found.auroc == pytest.approx(roc_auc_score(labels, values), abs=1e-12)
    assert found.ap == pytest.approx(average_precision_score(labels, values), abs=1e-12)
    assert found.f1_max == pytest.approx(f1.max(), abs=1e-12)


def test_curves_enclose_their_areas(scores):
    normal, anomalous = scores
    found = ranking(normal, anomalous)
    false, true = roc_curve(normal, anomalous)
    assert np.trapezoid(true, false) == pytest.approx(found.auroc, abs=1e-12)
    recall, precision = pr_curve(normal, anomalous)
    assert np.sum(np.diff(recall, prepend=0) * precision) == pytest.approx(found.ap, abs=1e-12)


def test_no_metric_without_both_kinds():
    assert ranking(np.zeros(3), np.zeros(0)) is None
    assert ranking(np.zeros(0), np.zeros(3)) is None


def test_ties_count_half():
    assert false_positive_rates(np.array([0.0, 1, 1, 2]), np.array([1.0]))[0] == pytest.approx(0.5)


@pytest.fixture
def pixels():
    """Smooth maps with two defect regions each; the second image has none."""
    rng = np.random.default_rng(0)
    maps, masks = [], []
    for index in range(4):
        mask = np.zeros((60, 60), bool)
        if index != 1:
            mask[5:15, 5:20] = True
            mask[30:33, 40 : 42 + index] = True
        noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 2)
        maps.append((noise + 0.25 * ndimage.gaussian_filter(mask.astype(float), 2)).astype(np.float32))
        masks.append(mask)
    return maps, masks


def test_pixel_metrics_equal_scikit_learn_and_the_threshold_loop(pixels):
    maps, masks = pixels
    found = pixel_metrics(maps, masks)
    values, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    assert found.auroc == pytest.approx(roc_auc_score(labels, values), abs=1e-5)
    assert found.ap == pytest.approx(average_precision_score(labels, values), abs=1e-5)
    assert found.aupro == pytest.approx(threshold_aupro(maps, masks, 2000), abs=2e-3)
    assert found.aupro == pytest.approx(threshold_aupro(maps, masks, 200), abs=1e-2)


def threshold_aupro(maps, masks, count):
    """The usual definition: overlap of each region at falling thresholds, integrated up to FPR 0.3."""
    normal = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [one[labels == k + 1] for k in range(number)]
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    thresholds = np.linspace(high, low, count)
    false = np.array([(normal > t).mean() for t in thresholds])
    overlap = np.array([np.mean([(region > t).mean() for region in regions]) for t in thresholds])
    inside = false <= 0.3
    end = np.interp(0.3, false, overlap)
    return np.trapezoid(np.r_[overlap[inside], end], np.r_[false[inside], 0.3]) / 0.3


def test_one_hot_pixel_does_not_move_aupro(pixels):
    maps, masks = pixels
    results = []
    for peak in (None, 1e6):
        changed = [one.copy() for one in maps]
        if peak:
            for one in changed:
                one[0, 0] = peak
        results.append(pixel_metrics(changed, masks).aupro)
    assert results[1] == pytest.approx(results[0], abs=0.01)


def test_regions_count_alike_and_diagonal_neighbours_are_one():
    mask = np.zeros((20, 20), bool)
    mask[0:10, 0:10] = True  # found
    mask[15, 15] = mask[16, 16] = True  # one region of two pixels, missed
    found = pixel_metrics([np.where(mask & (np.arange(20)[:, None] < 12), 1.0, 0.0)], [mask])
    # the missed region ties with all normal pixels: FPR 0.5, beyond 0.3
    assert found.aupro == pytest.approx(0.5)


def test_no_masks_no_pixel_metrics():
    nothing = np.zeros((4, 4), bool)
    assert pixel_metrics([np.zeros((4, 4))], [nothing]) is None
    assert pixel_metrics([np.zeros((4, 4))], [~nothing]) is None
    for add in (PixelScores().add_defects, PixelScores().add_normal):
        with pytest.raises(ValueError, match="differ in shape"):
            add(np.zeros((4, 4)), np.zeros((4, 5), bool))


def pixel_metrics(maps, masks):
    collected = PixelScores()
    for one, mask in zip(maps, masks, strict=True):
        collected.add_defects(one, mask)
    for one, mask in zip(maps, masks, strict=True):
        collected.add_normal(one, mask)
    return collected.result()


def test_defects_that_come_too_late_are_an_error(pixels):
    """They would be missing among the levels: an AUROC of .946 instead of .771, and nobody would know."""
    maps, masks = pixels
    interleaved = PixelScores()
    interleaved.add_defects(maps[0], masks[0])
    interleaved.add_normal(maps[0], masks[0])
    with pytest.raises(RuntimeError, match="add the defects of all images first"):
        interleaved.add_defects(maps[2], masks[2])
    early = PixelScores()
    assert early.result() is None
    with pytest.raises(RuntimeError, match="after add_normal or result"):
        early.add_defects(maps[0], masks[0])


def test_pixels_counted_in_blocks_give_the_same_numbers(pixels, monkeypatch):
    usual = pixel_metrics(*pixels)
    # a block is full as soon as it holds as many pixels as there are defect pixels
    monkeypatch.setattr(
        "llbnad.evaluation.metrics.block_bytes", lambda: 4
    )  # as soon as there are as many as defect pixels
    assert pixel_metrics(*pixels) == usual


def test_normal_pixels_need_no_memory_of_their_own():
    side, images = 512, 200
    collected = PixelScores()
    mask = np.zeros((side, side), bool)
    mask[:10, :10] = True
    scores = np.random.default_rng(0).random((side, side), np.float32)
    tracemalloc.start()
    collected.add_defects(scores, mask)
    for _ in range(images):
        collected.add_normal(scores, mask)
    found = collected.result()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * side**2 * images / 3  # 4 bytes a pixel would be kept
    assert found.auroc == pytest.approx(roc_auc_score(mask.ravel(), scores.ravel()), abs=1e-5)


def test_smoothing_is_the_gaussian_it_says():
    """Rows after columns: the same as scipy's, whose kernel reaches as far."""
    maps = torch.from_numpy(np.random.default_rng(0).random((2, 7, 7), np.float32))
    size = 98
    resized = torch.nn.functional.interpolate(maps[:, None], size=(size, size), mode="bilinear")[:, 0].numpy()
    expected = [ndimage.gaussian_filter(one, SMOOTHING * size, mode="mirror", truncate=4) for one in resized]
    assert np.allclose(pixel_maps(maps, (size, size), size).numpy(), np.stack(expected), atol=1e-5)
