"""Detectors by name. To add one, write a file with a config and a class, and add a line here (see CONTRIBUTING.md)."""

from typing import TYPE_CHECKING

from llbnad.config import DetectorConfig
from llbnad.utils.registry import Registry

if TYPE_CHECKING:
    from llbnad.detectors.base import Detector

DETECTORS = Registry(
    "detector",
    {
        "anomalib": "llbnad.detectors.anomalib.detector:Anomalib",
        "dfr": "llbnad.detectors.dfr:Dfr",
        "dinomaly": "llbnad.detectors.dinomaly.detector:Dinomaly",
        "padim": "llbnad.detectors.padim:Padim",
        "patchcore": "llbnad.detectors.patchcore.detector:Patchcore",
        "softpatch": "llbnad.detectors.softpatch.detector:Softpatch",
    },
)


def create_detector(config: DetectorConfig) -> "Detector":
    """Return an untrained detector."""
    detector: Detector = DETECTORS.get(config.name)(config)
    return detector
