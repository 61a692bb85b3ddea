"""The memory of training and scoring does not grow with the number of images."""

import sys
from pathlib import Path

import pytest

from benchmarks.measured.process import measure
from tests import warm

FEW, MORE = 200, 1_000  # synthetic images of 14 × 14 patches


@pytest.fixture(autouse=True)
def start_warm(monkeypatch):
    """Fork the measured process from one that has imported the libraries; what it adds to its peak is measured."""
    monkeypatch.setattr(sys, "executable", str(Path(warm.programs()) / "python"))


@pytest.mark.parametrize(
    ("detector", "settings", "limit", "count"),
    [
        ("patchcore", {"memory_size": 1024}, 0, FEW),
        ("padim", {"dimensions": 16}, 0, FEW),
        ("dfr", {"steps": 20}, 0, FEW),
        # else both would be within the usual limit; fewer images do not fill this one
        ("softpatch", {"memory_size": 1024, "discriminator": "gaussian"}, 1, 4 * FEW),
    ],
)
def test_memory_does_not_grow_with_the_number_of_images(detector, settings, limit, count):
    few, many = (
        measure("growth.stage", 1, detector=detector, images=images, settings=settings, memory_limit=limit)
        for images in (count, count + MORE)
    )
    kept = many["maps_mb"] - few["maps_mb"]
    assert many["mb"] - few["mb"] < kept + 60, (few, many)  # a careless loop keeps .12 MB more per image


def test_images_of_16_megapixels_are_scored_in_bounded_memory(tmp_path):
    """In tiles, with the largest possible region; more images and more tiles need no more memory."""
    one, many, finer = (
        measure("growth.large_images", 1, folder=str(tmp_path), images=images, tiles=tiles)
        for images, tiles in ((1, (2, 3)), (5, (2, 3)), (1, (8, 12)))
    )
    pixels = one["pixels"] / 2**20
    assert one["mb"] < 40 * pixels + 100, one  # the image read ahead, and 20 bytes per pixel for regions
    assert many["mb"] < one["mb"] + 6 * pixels, (one, many)  # two images are read ahead
    assert finer["mb"] < one["mb"] + 100, (one, finer)


def test_stage_1_keeps_scores_and_maps_only():
    """Three sub-models' maps, the consensus and trusted patches are kept; nothing else grows."""
    few, many = (measure("growth.stage_1", 1, images=count) for count in (FEW, FEW + MORE))
    kept = many["kept_mb"] - few["kept_mb"]
    assert many["mb"] - few["mb"] < 4 * kept + 60, (few, many)
