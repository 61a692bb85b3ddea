"""Frozen encoders by name. A new one is a module with a recipe and a class, and a line in each function here."""

from llbnad.config import EncoderConfig
from llbnad.encoders.base import Encoder, Recipe
from llbnad.errors import ConfigError

NAMES = ("efficientnet_lite2",)


def recipe(config: EncoderConfig) -> Recipe:
    """What decides the encoder's output; cheap, imports no torch.

    Raises:
        ConfigError: the name is unknown.
        OfflineError: the weights are not installed.
    """
    _check_name(config)
    from llbnad.encoders import efficientnet_lite

    return efficientnet_lite.recipe(config)


def create_encoder(config: EncoderConfig, device: str) -> Encoder:
    """Load the encoder onto `device`. Raises what `recipe` raises."""
    _check_name(config)
    from llbnad.encoders import efficientnet_lite

    return efficientnet_lite.EfficientNetLite(config, device)


def _check_name(config: EncoderConfig) -> None:
    if config.name not in NAMES:
        raise ConfigError(f"unknown encoder {config.name!r}; there are {list(NAMES)}")
