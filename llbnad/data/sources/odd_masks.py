"""Masks that are odd or that nobody uses."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from llbnad.data.masks import split_masks
from llbnad.data.sources.records import PART, Record, Rejection

SHOWN = 3  # examples in a line
MUCH = 0.75  # share of an image's pixels that is more than a defect


def odd_masks(shares: Mapping[str, float], defects: Collection[str]) -> Iterator[str]:
    """Yield a line on the masks that mark nearly everything, and one on those that mark nothing of a defect."""
    much = sorted(path for path, share in shares.items() if share > MUCH)
    if much:
        yield (
            f"the masks of {len(much)} of {len(shares)} images mark more than {MUCH:.0%} of them: are black and white "
            f"exchanged? {', '.join(much[:SHOWN])}"
        )
    nothing = sorted(path for path, share in shares.items() if share == 0 and path in defects)
    if nothing:
        yield (
            f"the masks of {len(nothing)} of {len(shares)} images mark nothing, though a defect is named: "
            f"{', '.join(nothing[:SHOWN])}"
        )


def unused_masks(
    records: Sequence[Record], rows: Sequence[dict[str, Any]], rejected: Sequence[Rejection]
) -> list[Rejection]:
    """Return the masks of records that nobody uses and nobody has listed."""
    used = {mask for row in rows for mask in split_masks(row["mask_path"])}
    kept, listed = {row["path"] for row in rows}, {rejection.path for rejection in rejected}
    found = []
    for record in records:
        for mask in sorted(set(split_masks(record.mask_path)) - used - listed):
            if record.path in kept:
                found.append(Rejection(mask, "mask_unused", PART.format(record.path)))
            else:
                found.append(Rejection(mask, "mask_without_image", f"its image {record.path} is left out"))
    return found
