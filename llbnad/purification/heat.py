"""Patch maps by image id, in memory and in files: anomaly maps of sub-models or detectors, and masks of patches."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from llbnad.detectors.base import judge
from llbnad.features.source import FeatureSource
from llbnad.model.model import Model
from llbnad.utils.files import replacing

OS_ERROR = re.compile(r"os error (\d+)")


def mean_heat(models: Sequence[Model], features: FeatureSource, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the patch maps (h, w) float16 of `image_ids`, averaged over `models`."""
    import torch

    heat: dict[str, np.ndarray] = {}
    for batch in features.batches(sorted(image_ids), "heat maps"):
        maps = torch.stack([judge(model.detector, batch)[0] for model in models]).mean(dim=0)  # (B, h, w)
        heat.update(zip(batch.image_ids, maps.half().cpu().numpy(), strict=True))
    return heat


def write_heat(heat: Mapping[str, np.ndarray], path: Path) -> None:
    """Write maps as safetensors, named by image id. Maps in memory are not copied.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file({image_id: np.ascontiguousarray(heat[image_id]) for image_id in sorted(heat)}, temporary)
        except SafetensorError as error:  # which tells the system's error in words
            if (found := OS_ERROR.search(str(error))) is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from None
        temporary.chmod(mode)  # safetensors lets nobody else read its files


class StoredHeat(Mapping[str, np.ndarray]):
    """The maps that `write_heat` wrote, by image id. A map is read when it is asked for, so memory stays small."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(path, framework="np")
        self._image_ids = dict.fromkeys(sorted(self._file.keys()))

    def __getitem__(self, image_id: str) -> np.ndarray:
        if image_id not in self._image_ids:
            raise KeyError(image_id)
        found: np.ndarray = self._file.get_tensor(image_id)
        return found

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._image_ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)
