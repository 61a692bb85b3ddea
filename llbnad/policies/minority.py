"""A group of lowest scores that is too small to be what is normal.

A frozen camera's shots, or one shot saved twice: another sub-model knows such an image, so it scores far below all
others. Whoever looks for the gap between two groups may find that one. The group is kept then, and the gap is looked
for among the other images.
"""

SHARE = 1 / 3  # of the images; purification rests on most of them being normal


def is_minority(count: int, total: int) -> bool:
    """Whether the lowest `count` of `total` images are too few."""
    return count < SHARE * total
