"""The memory of training and scoring does not grow with the number of images."""

import pytest

from benchmarks.measured.process import measure

FEW, MANY = 400, 2_000  # synthetic images of 14 × 14 patches


@pytest.mark.parametrize(
    ("detector", "settings", "limit"),
    [
        ("patchcore", {"memory_size": 1024}, 0),
        ("padim", {"dimensions": 16}, 0),
        ("dfr", {"steps": 20}, 0),
        ("softpatch", {"memory_size": 1024, "discriminator": "gaussian"}, 1),  # else both would be within the usual one
    ],
)
def test_memory_does_not_grow_with_the_number_of_images(detector, settings, limit):
    few, many = (
        measure("growth.stage", 1, detector=detector, images=count, settings=settings, memory_limit=limit)
        for count in (FEW, MANY)
    )
    kept = many["maps_mb"] - few["maps_mb"]
    assert many["mb"] - few["mb"] < kept + 60, (few, many)  # the small tensors of a careless loop made it 190 MB


def test_stage_1_keeps_scores_and_maps_only():
    """Three sub-models' maps, the consensus and trusted patches are kept; nothing else grows."""
    few, many = (measure("growth.stage_1", 1, images=count) for count in (FEW, MANY))
    kept = many["kept_mb"] - few["kept_mb"]
    assert many["mb"] - few["mb"] < 4 * kept + 60, (few, many)
