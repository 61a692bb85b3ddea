"""Regions of maps whose regions are known, and a level that a stated share of normal maps exceeds."""

import numpy as np
import pytest

from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.regions.find import enlarge, find_regions, region_level, region_mask


def two_blobs():
    """A map of 8 × 10 patches with a block of 2 × 3 patches of value 5 and a single patch of value 9."""
    found = np.zeros((8, 10), np.float32)
    found[1:3, 1:4] = 5
    found[6, 8] = 9
    return found


def test_two_blobs_are_two_regions_with_area_box_centre_and_peak():
    single, block = find_regions(two_blobs(), (10, 8), 1, 1)  # one pixel per patch; highest peak first
    assert block.numbers() == {"area": 6, "box": [1, 1, 3, 2], "centre": [2.5, 2.0], "peak": 5.0}
    assert single.numbers() == {"area": 1, "box": [8, 6, 1, 1], "centre": [8.5, 6.5], "peak": 9.0}
    assert np.array_equal(region_mask([single, block], (10, 8)), two_blobs() > 1)


@pytest.mark.parametrize("scale", [9, 40])
def test_regions_are_in_pixels_of_the_original_image(scale):
    """At half of a block's height, bilinear interpolation cuts it along the edges of its patches."""
    size = (10 * scale, 8 * scale)
    (block,) = find_regions(two_blobs(), size, 2.5, 2 * scale * scale)
    x, y, width, height = block.box
    assert (x, y) == pytest.approx((scale, scale), abs=1) and (width, height) == pytest.approx(
        (3 * scale, 2 * scale), abs=2
    )
    assert 0.9 * 6 * scale**2 < block.area <= width * height  # the corners are round
    assert block.centre == pytest.approx((2.5 * scale, 2 * scale), abs=0.02) and block.peak == pytest.approx(5)
    assert region_mask([block], size).sum() == block.area == block.runs[:, 1].sum()


def test_a_map_is_not_squeezed_sideways():
    wide = enlarge(np.eye(4), (400, 40))
    assert wide.shape == (40, 400) and wide[4, 49] == pytest.approx(1, abs=0.02)


def test_diagonal_neighbours_are_one_region_and_small_ones_none():
    diagonal = np.eye(5, dtype=np.float32)
    assert [one.area for one in find_regions(diagonal, (5, 5), 0.5, 5)] == [5]
    assert find_regions(diagonal, (5, 5), 0.5, 6) == []
    assert find_regions(diagonal, (5, 5), 1.0, 1) == []  # above the level, not at it


def test_a_region_within_the_hole_of_another_is_its_own():
    ring = np.ones((7, 7), np.float32)
    ring[1:6, 1:6] = 0
    ring[3, 3] = 2
    inner, outer = find_regions(ring, (7, 7), 0.5, 1)
    assert (inner.area, outer.area) == (1, 24) and outer.box == (0, 0, 7, 7)
    assert np.array_equal(region_mask([inner, outer], (7, 7)), ring > 0.5)


@pytest.mark.parametrize("share", [1 / 144, 0.02, 0.2])
def test_a_map_has_a_region_if_and_only_if_the_level_is_below_its_own(share):
    size = (4 * 12, 4 * 12)  # the pixels that the level was found on
    for seed in range(5):
        made = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32)
        own, fewest = region_level(made, share), max(1, round(share * 48 * 48))
        assert find_regions(made, size, np.nextafter(np.float32(own), np.float32(-9)), fewest)
        assert not find_regions(made, size, own, fewest)


def normal_maps(rng, count):
    return rng.gamma(4, size=(count, 12, 12)).astype(np.float32)


def pixel_threshold(maps, target, share=1 / 144):
    return PixelThreshold(threshold_at([region_level(one, share) for one in maps], target, unsure=False), share)


def test_the_stated_share_of_normal_maps_has_a_region_at_any_size_of_the_image():
    rng = np.random.default_rng(0)
    found = pixel_threshold(normal_maps(rng, 300), 0.1)
    fresh = normal_maps(rng, 300)
    for size in ((48, 48), (300, 150)):
        share = np.mean([bool(found.regions(one, size)) for one in fresh])
        assert found.levels.fpr_low - 0.02 < share < found.levels.fpr_high + 0.02
    assert found.at(0.3).value < found.value and found.at(0.3).min_area == found.min_area
    assert not any(found.regions(one, (48, 48), 48 * 48) for one in fresh)  # no region is the whole image


def test_kept_defects_do_not_raise_the_level():
    maps = normal_maps(np.random.default_rng(1), 40)
    clean = pixel_threshold(maps, 0.01).value
    maps[:6, 4:8, 4:8] += 100
    spoilt = pixel_threshold(maps, 0.01)
    assert spoilt.value < 1.5 * clean and spoilt.levels.decided_by == "bound"
    assert all(spoilt.regions(one, (12, 12)) for one in maps[:6])


def test_sixteen_megapixels_are_searched_in_little_more_memory_than_their_map():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (block,) = find_regions(two_blobs(), (4900, 3300), 2.5, 300_000)
    assert block.area == pytest.approx(6 * 490 * 412.5, rel=0.08)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB
