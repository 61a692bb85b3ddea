"""Detectors by name. A new one is a module, its config in `llbnad/config.py` and a line in `create_detector`."""

from llbnad.config import DetectorConfig, PadimConfig, PatchcoreConfig
from llbnad.detectors.base import Detector, embed, image_scores

__all__ = ["Detector", "create_detector", "embed", "image_scores"]


def create_detector(config: DetectorConfig) -> Detector:
    """An untrained detector."""
    if isinstance(config, PatchcoreConfig):
        from llbnad.detectors.patchcore import Patchcore

        return Patchcore(config)
    if isinstance(config, PadimConfig):
        from llbnad.detectors.padim import Padim

        return Padim(config)
    raise TypeError(f"no detector for {config!r}")
