"""The middle part of a graph as one torch module: from canvases of pixels to the detector's maps over them."""

from typing import TYPE_CHECKING, Any

from llbnad.config import EncoderConfig
from llbnad.data.canvas import Canvas
from llbnad.encoders import create_encoder
from llbnad.encoders.canvases import canvas_of
from llbnad.encoders.tiled import TiledEncoder, blend_of
from llbnad.errors import ConfigError
from llbnad.features.batch import Batch
from llbnad.inference.graph.precision import round_weights, rounded
from llbnad.model.model import Model

if TYPE_CHECKING:
    import torch

KNOWN = ("name", "input_size", "layers", "view", "tiles", "overlap")  # settings of an encoder that the graph follows


def refuse(model: Model) -> None:
    """Refuse a model that a graph cannot hold. Its encoder is loaded for that.

    Raises:
        ConfigError: the encoder has a setting that the graph does not follow or is no torch network, or the detector
            reads no features.
    """
    defaults = EncoderConfig()
    for name in type(model.encoder).model_fields:
        value = getattr(model.encoder, name)
        if name not in KNOWN and value != getattr(defaults, name):
            raise ConfigError(
                f"encoder.{name} {value!r} cannot be exported: a graph does not follow it; use `llbnad predict`"
            )
    if not model.config.uses_features:
        raise ConfigError(
            f"detector {model.config.name} cannot be exported: it reads images, not features; use `llbnad predict`"
        )
    _exportable_encoder(model.encoder)


def _exportable_encoder(config: EncoderConfig) -> Any:
    """Return the encoder of one tile, which has a torch `network` and a method `layers`."""
    encoder: Any = create_encoder(config, "cpu")
    if isinstance(encoder, TiledEncoder):
        encoder = encoder.encoder
    if not (hasattr(encoder, "layers") and hasattr(encoder, "network")):
        raise ConfigError(
            f"encoder {config.name} cannot be exported: it has no torch `network` or no method `layers`; "
            "use `llbnad predict`"
        )
    return encoder


def maps_module(model: Model, half: bool = False) -> "torch.nn.Module":
    """Return one torch module from canvases (B, H, W, 3) uint8 to maps (B, h, w) over them.

    Args:
        model: the trained model.
        half: round weights and what was learnt to 16 bits.

    Raises:
        ConfigError: the encoder cannot be exported.
    """
    import torch

    encoder, canvas = _exportable_encoder(model.encoder), canvas_of(model.encoder)
    if half:
        model = rounded(model)
        round_weights(encoder.network)

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = encoder.network  # a registered module's weights are exported

        def forward(self, canvases: torch.Tensor) -> torch.Tensor:
            if len(canvas.corners) == 1:
                maps, prefixes = encoder.layers(canvases)
            else:
                maps, prefixes = _tiled(encoder, canvas, canvases)
            return model.detector.patch_maps(Batch((), tuple(map(_rounded, maps)), tuple(map(_rounded, prefixes))))

    module = Maps().eval()
    for part in module.modules():
        if "inplace" in vars(part):
            vars(part)["inplace"] = False  # the exporter takes twice as long to rewrite what works in place
    return module


def _tiled(encoder: Any, canvas: Canvas, canvases: "torch.Tensor") -> "tuple[list[torch.Tensor], list[torch.Tensor]]":
    """Encode canvases tile by tile, as `llbnad.encoders.tiled.TiledEncoder` does."""
    import torch

    side, count = canvas.config.input_size, len(canvas.corners)
    tiles = torch.stack([canvases[:, top : top + side, left : left + side] for top, left in canvas.corners], dim=1)
    layers, prefixes = encoder.layers(tiles.flatten(0, 1))
    wholes = []
    for layer in layers:
        blend = blend_of(canvas, layer.shape[-1])
        parts = _rounded(layer).unflatten(0, (-1, count))  # (B, tiles, C, h, w)
        whole: Any = 0
        for number, (weight, (top, left)) in enumerate(zip(blend.weights, blend.corners, strict=True)):
            beside = (left, blend.size[1] - left - len(weight), top, blend.size[0] - top - len(weight))
            whole = whole + torch.nn.functional.pad(parts[:, number] * torch.from_numpy(weight), beside)
        wholes.append(whole)
    return wholes, [_rounded(prefix).unflatten(0, (-1, count)).mean(dim=1) for prefix in prefixes]


def _rounded(values: "torch.Tensor") -> "torch.Tensor":
    """Round to the 11 significant bits of a 16-bit float, as the feature cache does (Veltkamp, 1968).

    This uses float32 arithmetic instead of casting to float16 and back, because OpenVINO removes such a pair of casts.
    """
    raised = values * (2.0**13 + 1)
    return raised - (raised - values)
