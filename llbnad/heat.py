"""Heat maps of a few images, kept by image id: what people look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llbnad.detectors.base import FeatureSource
from llbnad.files import replacing
from llbnad.model import Model


def mean_heat(models: Sequence[Model], features: FeatureSource, image_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Patch maps (h, w) float16 of `image_ids`, averaged over `models`."""
    import torch

    heat: dict[str, np.ndarray] = {}
    for batch in features.batches(sorted(image_ids), "heat maps"):
        maps = torch.stack([model.detector.patch_maps(batch) for model in models]).mean(dim=0)  # (B, h, w)
        heat.update(zip(batch.image_ids, maps.half().cpu().numpy(), strict=True))
    return heat


def write_heat(heat: Mapping[str, np.ndarray], path: Path) -> None:
    """Write maps as safetensors, named by image id."""
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        save_file({image_id: np.ascontiguousarray(heat[image_id]) for image_id in sorted(heat)}, temporary)


def read_heat(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_heat` wrote."""
    from safetensors.numpy import load_file

    return load_file(path)
