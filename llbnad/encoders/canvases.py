"""The canvas that images are laid on for an encoder."""

from llbnad.config import EncoderConfig
from llbnad.data.canvas import Canvas
from llbnad.encoders import recipe
from llbnad.errors import ConfigError


def canvas_of(config: EncoderConfig) -> Canvas:
    """Return the canvas that images are laid on for an encoder. Raises the errors of `recipe`.

    Raises:
        ConfigError: the side of a tile is no multiple of the encoder's cell.
    """
    cell = recipe(config).cell if config.view != "squeeze" else 1
    if config.input_size % cell:
        near = max(1, round(config.input_size / cell)) * cell
        raise ConfigError(
            f"encoder.input_size {config.input_size} is no multiple of {cell} px, by which view {config.view} shifts "
            f"images: try {near}"
        )
    return Canvas(config, cell)
