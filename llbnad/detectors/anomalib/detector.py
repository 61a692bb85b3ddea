"""Any image model of anomalib 2.7 as a detector: trained by Lightning on the images, its map averaged to a patch grid.

The extra `anomalib` brings it (`pip install -e '.[anomalib]'`). Models that take a timm backbone by name get
EfficientNet-Lite2's weights from this package: Padim, Stfpm, Patchcore, Patchflow and Dfm run without network.
What a model would download is refused at once unless `download` allows it. anomalib's own thresholds,
scores and files are not used: the image score is this package's, the model is saved as tensors.

Kept in memory while training: the images as 8-bit RGB at the encoder's input size. Training is deterministic on a CPU;
on a GPU it is as deterministic as the model's own operations.

References: Akcay et al., "Anomalib: A Deep Learning Library for Anomaly Detection", ICIP 2022 (arXiv 2202.08341).
"""

import inspect
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from llbnad.config import DetectorConfig
from llbnad.errors import ConfigError, DataError
from llbnad.features.batch import Batch
from llbnad.features.source import FeatureSource
from llbnad.utils.offline import no_downloads

if TYPE_CHECKING:
    import torch
    from anomalib.models import AnomalibModule

OWN_BACKBONE = "llbnad_efficientnet_lite2"  # timm's name of it, see encoders/timm_backbone.py
OWN_LAYERS = ("blocks.1", "blocks.2", "blocks.4")  # strides 4, 8, 16
# what models raise at settings they cannot have
BUILDING = (ValueError, TypeError, AttributeError, NotImplementedError, KeyError, AssertionError, ImportError)
STRIDE = 8  # pixels of a cell of the map
AUXILIARY = {"post_processor": False, "evaluator": False, "visualizer": False}


class AnomalibConfig(DetectorConfig):
    """Settings of `Anomalib`."""

    uses_features: ClassVar[bool] = False

    name: Literal["anomalib"] = "anomalib"
    model: str = "Padim"  # a class of anomalib.models.image
    epochs: int = Field(10, ge=1)  # models that need a single pass, as Padim, take one whatever this says
    batch: int = Field(16, ge=1)  # images a step
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of the model's class, e.g. {backbone: resnet18}
    download: bool = False  # may the model fetch weights from the network?


class Anomalib:
    """A model of anomalib; the unit of its map is the model's own."""

    config_class: ClassVar = AnomalibConfig

    def __init__(self, config: AnomalibConfig) -> None:
        self.config = config
        self.model: AnomalibModule | None = None
        self.side = 0  # pixels of an image's side

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Train the model on the images `image_ids`."""
        import torch

        kind = _model_class(self.config.model)
        from lightning.pytorch import seed_everything
        from lightning.pytorch.utilities.seed import isolate_rng

        batches = [batch.images for batch in features.batches(sorted(image_ids), "read images")]
        if not batches:
            raise DataError(f"no training image for anomalib's {self.config.model}: at least 1 is needed")
        images = torch.cat([images.cpu() for images in batches])  # (N, 3, H, W) uint8
        self.side = images.shape[-1]
        with isolate_rng(), self._offline(), _lenient():
            seed_everything(seed, verbose=False)
            self.model = self._build(kind)
            self._train(self.model, images, batches[0].device, seed)
        self.model.trainer = None  # it holds the images
        self.model.eval().requires_grad_(False)

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """The model's map averaged over cells of STRIDE pixels (B, h, w); a single cell where it only has a score."""
        import torch
        from torch.nn import functional

        if self.model is None:
            raise RuntimeError("fit or restore comes first")
        images = batch.images
        with torch.inference_mode():
            found = self.model.to(images.device)(images.float() / 255)
        if found.anomaly_map is None:
            return found.pred_score.float().reshape(-1, 1, 1)
        maps = found.anomaly_map.float().reshape(len(images), 1, *found.anomaly_map.shape[-2:])
        return functional.adaptive_avg_pool2d(maps, max(1, self.side // STRIDE))[:, 0]

    def tensors(self) -> "dict[str, torch.Tensor]":
        """The whole model's state, its backbone's too, and the image size."""
        import torch

        state = self.model.state_dict() if self.model else {}
        named = {f"model.{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
        return {"side": torch.tensor([self.side]), **named}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take back what `tensors` gave."""
        self.side = int(tensors["side"])
        state = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        kind = _model_class(self.config.model)
        from lightning.pytorch.utilities.seed import isolate_rng

        with isolate_rng(), self._offline():
            self.model = self._build(kind)
        self.model.load_state_dict(state)
        self.model.eval().requires_grad_(False)

    def _offline(self) -> AbstractContextManager[None]:
        return no_downloads(f"anomalib's {self.config.model}", REMEDY, self.config.download)

    def _build(self, kind: Any) -> "AnomalibModule":
        """An untrained model for images of `side` pixels, with weights from this package where it takes them."""
        parameters = inspect.signature(kind).parameters
        unknown = sorted(set(self.config.options) - set(parameters))
        if unknown:
            known = sorted(set(parameters) - set(AUXILIARY) - {"pre_processor"})
            raise ConfigError(f"detector.options of anomalib's {self.config.model} has no {unknown}; there are {known}")
        arguments: dict[str, Any] = {name: value for name, value in AUXILIARY.items() if name in parameters}
        try:
            if "pre_processor" in parameters:
                arguments["pre_processor"] = kind.configure_pre_processor((self.side, self.side))
            if "backbone" in parameters and "backbone" not in self.config.options:
                arguments |= _own_backbone(parameters, self.side)
            arguments |= self.config.options
            model: AnomalibModule = kind(**arguments)
        except BUILDING as error:
            backbone = f", backbone {arguments['backbone']}" if "backbone" in arguments else ""
            raise ConfigError(
                f"anomalib's {self.config.model} cannot be built for images of {self.side} pixels{backbone}: {error}. "
                "Change detector.options or encoder.input_size"
            ) from error
        return model

    def _train(self, model: "AnomalibModule", images: "torch.Tensor", device: "torch.device", seed: int) -> None:
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from lightning.pytorch import Trainer

        from llbnad.detectors.anomalib.data import TrainingImages

        data = TrainingImages(images, self.config.batch, seed, f"train {self.config.model}")
        cuda = {"accelerator": "gpu", "devices": [device.index or 0]}
        ours = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False,
                "logger": False, "limit_val_batches": 0}  # fmt: skip
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's advice on workers, loggers and hardware
            wanted = {"max_epochs": self.config.epochs, **model.trainer_arguments, **ours,
                      **(cuda if device.type == "cuda" else {"accelerator": "cpu", "devices": 1})}  # fmt: skip
            try:
                Trainer(default_root_dir=folder, **wanted).fit(model, datamodule=data)
            except (RuntimeError, MisconfigurationException, *BUILDING) as error:
                raise ConfigError(
                    f"anomalib's {self.config.model} fails in training on {len(images)} images of {self.side} pixels: "
                    f"{error}. Change detector.options or encoder.input_size"
                ) from error


REMEDY = (
    "use one that takes a timm backbone (Padim, Stfpm, Patchcore, Patchflow, Dfm), give it "
    "detector.options {pre_trained: false} where it knows that, or set detector.download to true "
    "on a machine with network"
)


@contextmanager
def _lenient() -> Iterator[None]:
    """On a GPU, an operation without a deterministic kernel is taken as it is instead of being an error."""
    import torch

    strict = torch.are_deterministic_algorithms_enabled()
    if strict:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        if strict:
            torch.use_deterministic_algorithms(True)


INCOMPARABLE = {"Cflow": "scales every batch by the batch's own maximum, so that images cannot be compared"}


def _model_class(name: str) -> Any:
    """anomalib's class called `name`, or a ConfigError that lists those there are."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of modules that anomalib imports from itself
            from anomalib.models import image
    except ImportError as error:
        raise ConfigError(f"detector anomalib: {error}; run `pip install 'anomalib==2.7.0'`") from None
    for logger in ("lightning.pytorch", "lightning.fabric", "anomalib"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if name not in image.__all__:
        raise ConfigError(f"detector.model: anomalib has no image model {name!r}; there are {sorted(image.__all__)}")
    if name in INCOMPARABLE:
        raise ConfigError(f"detector.model: anomalib's {name} {INCOMPARABLE[name]}: choose another model")
    return getattr(image, name)


def _own_backbone(parameters: Mapping[str, inspect.Parameter], side: int) -> dict[str, Any]:
    """Arguments that give a model EfficientNet-Lite2, as many of its layers as the model takes by default."""
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    from llbnad.encoders import timm_backbone

    timm_backbone.register()
    normalise = Normalize(mean=[0.5] * 3, std=[0.5] * 3)
    found: dict[str, Any] = {
        "backbone": OWN_BACKBONE,
        "pre_processor": PreProcessor(Compose([Resize((side, side), antialias=True), normalise])),
    }
    if "layers" in parameters:
        found["layers"] = list(OWN_LAYERS[-len(parameters["layers"].default or OWN_LAYERS[1:]) :])
    if "layer" in parameters:
        found["layer"] = OWN_LAYERS[-1]
    if "n_features" in parameters and parameters["n_features"].default is None:
        found["n_features"] = 100
    return found
