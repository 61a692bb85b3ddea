"""Any image model of anomalib 2.7 as a detector. Lightning trains it on images; its map is averaged to a patch grid.

The extra `anomalib` installs it (`pip install -e '.[anomalib]'`). Models that take a timm backbone by name get
EfficientNet-Lite2 with its installed weights, so Padim, Stfpm, Patchcore, Patchflow and Dfm run without network. A
download by a model is an error unless `download` allows it. anomalib's own thresholds, scores and files are not used:
the image score is this package's, and the model is saved as tensors.

Training keeps all images in memory, as 8-bit RGB at the encoder's input size. Training is deterministic on a CPU. On a
GPU it is as deterministic as the model's own operations.

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

OWN_BACKBONE = "llbnad_efficientnet_lite2"  # its name in timm's registry, see encoders/timm_backbone.py
OWN_LAYERS = ("blocks.1", "blocks.2", "blocks.4")  # strides 4, 8, 16
# errors that models raise for settings that they cannot have
BUILDING = (ValueError, TypeError, AttributeError, NotImplementedError, KeyError, AssertionError, ImportError)
STRIDE = 8  # side of a cell of the map, in pixels
AUXILIARY = {"post_processor": False, "evaluator": False, "visualizer": False}


class AnomalibConfig(DetectorConfig):
    """Settings of `Anomalib`."""

    uses_features: ClassVar[bool] = False

    name: Literal["anomalib"] = "anomalib"
    model: str = "Padim"  # a class of anomalib.models.image
    epochs: int = Field(10, ge=1)  # models that need one pass, such as Padim, ignore it
    batch: int = Field(16, ge=1)  # images per step
    options: dict[str, Any] = Field(default_factory=dict)  # arguments of the model's class, e.g. {backbone: resnet18}
    download: bool = False  # whether the model may fetch weights from the network


class Anomalib:
    """Detector around a model of anomalib. The unit of its map is the model's own."""

    config_class: ClassVar = AnomalibConfig

    def __init__(self, config: AnomalibConfig) -> None:
        self.config = config
        self.model: AnomalibModule | None = None
        self.side = 0  # side of an image in pixels

    def fit(self, features: FeatureSource, image_ids: Sequence[str], seed: int) -> None:
        """Train the model on the images `image_ids`.

        Raises:
            DataError: there is no image.
            ConfigError: anomalib is not installed, has no such model, or the model fails with these settings.
            OfflineError: the model wants to download something.
        """
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
        self.model.trainer = None  # the trainer holds all images
        self.model.eval().requires_grad_(False)

    def patch_maps(self, batch: Batch) -> "torch.Tensor":
        """Return the model's map, averaged over cells of STRIDE pixels, (B, h, w).

        A model that returns only a score gives a map of one cell.
        """
        import torch
        from torch.nn import functional

        if self.model is None:
            raise RuntimeError("anomalib is not trained: call fit or restore first")
        images = batch.images
        with torch.inference_mode():
            found = self.model.to(images.device)(images.float() / 255)
        if found.anomaly_map is None:
            return found.pred_score.float().reshape(-1, 1, 1)
        maps = found.anomaly_map.float().reshape(len(images), 1, *found.anomaly_map.shape[-2:])
        return functional.adaptive_avg_pool2d(maps, max(1, self.side // STRIDE))[:, 0]

    def tensors(self) -> "dict[str, torch.Tensor]":
        """Return the state of the whole model, its backbone included, and the image size, by name."""
        import torch

        state = self.model.state_dict() if self.model else {}
        named = {f"model.{name}": tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
        return {"side": torch.tensor([self.side]), **named}

    def restore(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the trained model from the result of `tensors`."""
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
        """Return an untrained model for images of `side` pixels, on this package's backbone if it takes one.

        Raises:
            ConfigError: an option is unknown, or the model cannot be built with these settings.
        """
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
            warnings.simplefilter("ignore")  # Lightning gives advice on workers, loggers and hardware
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
    """Allow operations without a deterministic kernel inside the block; on a GPU they would be errors."""
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
    """Return anomalib's model class called `name`.

    Raises:
        ConfigError: anomalib is not installed, has no such model, or the model's maps cannot be compared.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # anomalib's own imports cause some
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
    """Return the arguments that give a model EfficientNet-Lite2, with as many layers as the model takes by default."""
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
