"""Synthetic defects change only their own pixels, and rates, summary and curves say what a known detector finds."""

import numpy as np
import pandas as pd
import pytest

from llbnad.errors import ConfigError
from llbnad.sensitivity.defects import KINDS, draw
from llbnad.sensitivity.rates import CLEAN, binomial_interval, detection_rates, smallest_found, summary_line

SIZES = (1, 3, 8, 20, 45)


def textured(height=60, width=80, seed=0):
    return np.random.default_rng(seed).integers(90, 160, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_changes_only_its_pixels_and_grows(kind):
    for image_id in ("a", "b", "c"):
        image, areas = textured(), []
        before = image.copy()
        for size in SIZES:
            pasted = draw(image, image_id, kind, size, 0.3)
            assert (pasted.image[~pasted.mask] == image[~pasted.mask]).all()
            assert (pasted.image != image).any()
            rows, columns = np.nonzero(pasted.mask)
            assert max(np.ptp(rows), np.ptp(columns)) <= size + 1
            areas.append(int(pasted.mask.sum()))
        assert areas == sorted(set(areas)) and (image == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_follows_from_image_kind_size_contrast_and_seed(kind):
    image = textured()
    first = draw(image, "a", kind, 9, 0.3).image
    assert (draw(image, "a", kind, 9, 0.3).image == first).all()
    for other in (
        draw(image, "b", kind, 9, 0.3),
        draw(image, "a", kind, 9, 0.3, seed=1),
        draw(image, "a", kind, 9, 0.1),
    ):
        assert (other.image != first).any()
    changes = [np.abs(draw(image, "a", kind, 9, c).image.astype(int) - image).sum() for c in (0.05, 0.15, 0.4)]
    assert changes[0] < changes[1] and (changes[1] < changes[2] or kind == "swap")


def test_a_defect_larger_than_its_image_is_cut_off():
    for kind in KINDS:
        assert draw(textured(5, 4), "a", kind, 50, 0.5).image.shape == (5, 4, 3)


@pytest.mark.parametrize(("kind", "size", "contrast"), [("hole", 3, 0.2), ("blot", 0, 0.2), ("blot", 3, 20)])
def test_an_impossible_defect_is_an_error_that_names_it(kind, size, contrast):
    with pytest.raises(ConfigError, match=f"got {kind!r}, {size} px, {contrast}"):
        draw(textured(), "a", kind, size, contrast)


def scored(limits, sizes=(2, 4, 8, 16), clean=0.0):
    """Scores of a detector that finds scratches from a size on, which is another one in each image."""
    rows = [(name, CLEAN, 0, 0.0, clean if name != "odd" else 9.0) for name in limits]
    rows += [(name, "scratch", size, 0.2, float(size >= limit)) for name, limit in limits.items() for size in sizes]
    return pd.DataFrame(rows, columns=["image_id", "kind", "size", "contrast", "score"])


def test_rates_of_a_known_detector():
    table = scored({"a": 4, "b": 4, "c": 8, "d": 16, "odd": 1})
    rates = detection_rates(table, 0.5)
    assert rates["size"].tolist() == [2, 4, 8, 16]
    assert rates["images"].tolist() == [4] * 4  # `odd` is called a defect as it is
    assert rates["rate"].tolist() == [0, 0.5, 0.75, 1]
    assert (rates["low"] <= rates["rate"]).all() and (rates["rate"] <= rates["high"]).all()
    assert rates["low"].iloc[0] == 0 and rates["high"].iloc[0] == pytest.approx(1 - 0.025 ** (1 / 4))
    assert [smallest_found(rates, "scratch", 0.2, share) for share in (0.5, 0.75, 0.9)] == [4, 8, 16]
    line = summary_line(rates, 0.2, 0.01)
    assert "scratch 4 × 1 / 16 × 3 px" in line and "4 images at 1 % false positives" in line


def test_a_size_does_not_count_if_a_larger_one_is_missed():
    rates = detection_rates(scored({"a": 4}).query("size != 16"), 0.5)
    worse = pd.concat([rates, rates.tail(1).assign(size=16, rate=0.0)])
    assert smallest_found(rates, "scratch", 0.2, 0.9) == 4
    assert smallest_found(worse, "scratch", 0.2, 0.9) is None
    assert "scratch none" in summary_line(worse, 0.2, 0.01)


def test_the_interval_covers_the_rate():
    low, high = binomial_interval(np.array([0, 5, 10]), np.array([10, 10, 10]))
    assert low.round(3).tolist() == [0, 0.187, 0.692] and high.round(3).tolist() == [0.308, 0.813, 1]
