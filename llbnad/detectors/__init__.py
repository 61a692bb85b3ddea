"""Detectors by name. A new one is a file with a config and a class, and a line here (llbnad/README.md shows how)."""

from typing import TYPE_CHECKING, Any

from llbnad.config import DetectorConfig
from llbnad.errors import ConfigError
from llbnad.utils.registry import Registry, lacking

if TYPE_CHECKING:
    from llbnad.detectors.base import Detector


def _problem(found: Any) -> str:
    config_class = getattr(found, "config_class", None)
    if not (isinstance(config_class, type) and issubclass(config_class, DetectorConfig)):
        return f"{found.__qualname__} has no config_class, a subclass of llbnad.config.DetectorConfig"
    return lacking(found, "fit", "patch_maps", "tensors", "restore")


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
    "llbnad.detectors",
    _problem,
)


def create_detector(config: DetectorConfig) -> "Detector":
    """Make an untrained detector. Raises ConfigError if there is none of the name in `config`."""
    try:
        detector: Detector = DETECTORS.get(config.name)(config)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return detector
