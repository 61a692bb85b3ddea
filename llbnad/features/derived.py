"""Tensors that follow from one image's features, such as its patch vectors, kept in memory for later passes.

A two-stage run passes over the same images some twenty times: sub-models, rounds, calibration, comparators, test. What
is kept is made once. When the memory is full, nothing is dropped for something new: passes go over the images in the
same order, so that each of them would find that what it needs next was dropped last.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class DerivedMemory:
    """Rows of tensors by name and image id. Nobody may modify them.

    Args:
        most_bytes: memory of all rows together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self._rows: dict[tuple[str, str], torch.Tensor] = {}

    def get(self, name: str, image_ids: Sequence[str]) -> "torch.Tensor | None":
        """Return the rows of these images, stacked (B, …); None unless all of them are there."""
        import torch

        rows = [self._rows.get((name, image_id)) for image_id in image_ids]
        return None if any(row is None for row in rows) else torch.stack(rows)  # type: ignore[arg-type]

    def keep(self, name: str, image_ids: Sequence[str], values: "torch.Tensor") -> None:
        """Keep rows of `values` (B, …) that are not there yet, as long as there is room."""
        new = [place for place, image_id in enumerate(image_ids) if (name, image_id) not in self._rows]
        for place in new:
            if self.bytes + values[place].nbytes > self.most_bytes:
                return
            # a view of a batch keeps all of it in memory, and its other rows may be there already
            row = values[place] if len(new) == len(image_ids) else values[place].clone()
            self._rows[name, image_ids[place]] = row
            self.bytes += row.nbytes
