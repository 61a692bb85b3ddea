"""Detectors by name. A new one is a file with a config and a class, and a line here (llbnad/README.md shows how)."""

from llbnad.config import DetectorConfig
from llbnad.detectors.base import Detector, embed, image_scores
from llbnad.registry import Registry

__all__ = ["DETECTORS", "Detector", "create_detector", "embed", "image_scores"]

DETECTORS = Registry(
    "detector",
    {
        "anomalib": "llbnad.detectors.anomalib:Anomalib",
        "dfr": "llbnad.detectors.dfr:Dfr",
        "dinomaly": "llbnad.detectors.dinomaly:Dinomaly",
        "padim": "llbnad.detectors.padim:Padim",
        "patchcore": "llbnad.detectors.patchcore:Patchcore",
        "softpatch": "llbnad.detectors.softpatch:Softpatch",
    },
)


def create_detector(config: DetectorConfig) -> Detector:
    """An untrained detector."""
    detector: Detector = DETECTORS.get(config.name)(config)
    return detector
