"""A group of lowest scores that is too small to be the normal images.

A camera that froze, or an image that was saved twice, gives images that some other sub-model has learnt. Such images
score far below all others. A policy that looks for the gap between two groups may find the gap above them. It then
keeps this group and looks for the gap among the other images.
"""

SMALLEST_NORMAL_SHARE = 1 / 3  # of the images; purification assumes that most are normal


def is_minority(count: int, total: int) -> bool:
    """Return whether the lowest `count` of `total` images are too few to be the normal images."""
    return count < SMALLEST_NORMAL_SHARE * total
