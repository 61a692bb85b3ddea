"""The detector as one torch module, from squares of pixels to score and map: what a graph is exported from."""

from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.data.images import load_square
from llbnad.detectors.base import image_scores
from llbnad.encoders import create_encoder
from llbnad.errors import ConfigError
from llbnad.features.batch import Batch
from llbnad.inference.exported import Session
from llbnad.inference.graph.precision import round_weights, rounded
from llbnad.model.model import Model

if TYPE_CHECKING:
    import torch

KNOWN = ("name", "input_size", "layers")  # settings of an encoder that the graph follows


def refuse(model: Model) -> None:
    """Refuse a model that a graph cannot hold.

    Raises:
        ConfigError: the encoder has a setting that the graph does not follow, the model has a region of interest, or
            the detector reads no features.
    """
    defaults = EncoderConfig()
    for name in type(model.encoder).model_fields:
        value = getattr(model.encoder, name)
        if name not in KNOWN and value != getattr(defaults, name):
            raise ConfigError(
                f"encoder.{name} {value!r} cannot be exported: a graph squeezes the whole image; use `llbnad predict`"
            )
    if model.region is not None:
        raise ConfigError(
            "a model with a region of interest cannot be exported: a graph scores the whole image; train one without "
            "`region`, or use `llbnad predict`"
        )
    if not model.config.uses_features:
        raise ConfigError(
            f"detector {model.config.name} cannot be exported: it reads images, not features; use `llbnad predict`"
        )


def torch_session(model: Model) -> Session:
    """Return a function that runs the exported module in torch, as a reference.

    Raises:
        ConfigError: the encoder cannot be exported.
    """
    import torch

    module = whole_module(model)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = np.stack([load_square(image, model.encoder.input_size) for image in images])
        with torch.inference_mode():
            score, maps = module(torch.from_numpy(squares))
        return score.numpy(), maps.numpy()

    return run


def whole_module(model: Model, half: bool = False) -> "torch.nn.Module":
    """Return one torch module from pixels to score and map."""
    import torch

    refuse(model)
    encoder = create_encoder(model.encoder, "cpu")
    layers: Any = getattr(encoder, "layers", None)
    if layers is None:
        raise ConfigError(f"encoder {model.encoder.name} cannot be exported: it has no torch function `layers`")

    if half:
        model = rounded(model)
        round_weights(encoder.network)  # type: ignore[attr-defined]

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = encoder.network  # type: ignore[attr-defined]  # a registered module's weights are exported

        def forward(self, squares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = layers(squares)
            maps = model.detector.patch_maps(Batch((), tuple(_rounded(layer) for layer in features)))
            return image_scores(maps), maps

    whole = Whole().eval()
    for part in whole.modules():
        if "inplace" in vars(part):
            vars(part)["inplace"] = False  # the exporter takes twice as long to rewrite what works in place
    return whole


def _rounded(values: "torch.Tensor") -> "torch.Tensor":
    """Round to the 11 significant bits of a 16-bit float, as the feature cache does (Veltkamp, 1968).

    This uses float32 arithmetic instead of casting to float16 and back, because OpenVINO removes such a pair of casts.
    """
    raised = values * (2.0**13 + 1)
    return raised - (raised - values)
