"""The whole detector as one graph in ONNX or OpenVINO: from pixels to image score and patch map.

Input:  `images` (B, S, S, 3) uint8 RGB, where S is the encoder's input size and B is free. Resizing stays outside the
        graph. Training used Pillow's antialiased bilinear filter, which rounds to 8 bits and exists in no runtime;
        another filter would change the scores.
Output: `score` (B,) and `map` (B, h, w), float32. The graph holds normalisation, encoder, the feature cache's rounding
        to 16 bits, detector and score. `<name>.json` beside the graph holds input size, detector,
        threshold, the interval of unsure scores, and the window by which values above 8 bits become the graph's 8 bits.

OpenVINO computes in bfloat16 by default where the CPU can. `load_exported` asks for float32; a server must do so too.
Runtimes add float32 numbers in different orders, so an exported detector is equal within a tolerance, not bit by bit.
If a patch is itself in PatchCore's memory, its distance is the root of a difference of equal numbers, and there the
tolerance does not hold. Parity is therefore judged on images that the detector did not learn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.detectors.base import image_scores
from llbnad.encoders import create_encoder
from llbnad.errors import ConfigError, LlbnadError
from llbnad.features.batch import Batch
from llbnad.model.model import Model
from llbnad.utils.files import replacing, write_json

if TYPE_CHECKING:
    import torch

OPSET = 20
TOLERANCE = 1e-4  # largest difference that counts as equal; relative to the largest value if that is above 1
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}

Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # images (B, S, S, 3) -> scores (B,), maps (B, h, w)


class Format(StrEnum):
    """A format that a detector can be exported to."""

    onnx = "onnx"
    openvino = "openvino"


SUFFIXES = {Format.onnx: ".onnx", Format.openvino: ".xml"}


class ExtraMissingError(LlbnadError):
    """A package that the export needs is not installed."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between an exported graph and a reference."""

    score: float
    map: float
    largest: float  # largest value of the reference's maps: about 50 for Mahalanobis distances, 2 for cosine distances
    images: int  # number of images compared

    @property
    def limit(self) -> float:
        """Largest difference that is allowed."""
        return TOLERANCE * max(1.0, self.largest)

    @property
    def passed(self) -> bool:
        """Whether images were compared and both differences are within the limit. NaN is not within it."""
        return self.images > 0 and self.score <= self.limit and self.map <= self.limit


def export(model: Model, formats: Sequence[Format], out: Path) -> dict[Format, Path]:
    """Write the graph in each of `formats`, and its JSON, into the folder `out`. Return the files of the graphs.

    Raises:
        ExtraMissingError: a package of the extra `export` is not installed.
        ConfigError: the encoder cannot be exported.
    """
    for format in formats:
        check_installed(format)
    graph = _onnx(model)
    targets = {format: out / f"{model.config.name}{SUFFIXES[format]}" for format in formats}
    out.mkdir(parents=True, exist_ok=True)
    if Format.onnx in targets:
        with replacing(targets[Format.onnx]) as temporary:
            temporary.write_bytes(graph)
    if Format.openvino in targets:
        import openvino

        openvino.save_model(openvino.Core().read_model(graph), targets[Format.openvino], compress_to_fp16=False)
    size, limits = model.encoder.input_size, model.threshold
    # scores from the first to the second number are unsure; null if none are
    unsure = [limits.unsure_low, limits.unsure_high] if limits is not None and limits.unsure else None
    facts = {
        "input": {"images": ["batch", size, size, 3], "type": "uint8 RGB"},
        "output": {"score": ["batch"], "map": ["batch", "height", "width"], "type": "float32"},
        "encoder": model.encoder.model_dump(mode="json"),
        "detector": model.config.model_dump(mode="json"),
        "threshold": model.threshold.value if model.threshold else None,
        "unsure": unsure,
        "window": None if model.window is None else list(model.window),
        "opset": OPSET,
    }
    write_json(facts, out / f"{model.config.name}.json")
    return targets


def load_exported(path: Path, threads: int = 0) -> Session:
    """Load a graph and return a function that runs it on the CPU in float32.

    Args:
        path: file of the graph, .onnx or OpenVINO's .xml.
        threads: CPU threads; 0 = the runtime's own choice.

    Raises:
        ExtraMissingError: the runtime is not installed.
    """
    format = Format.openvino if path.suffix == ".xml" else Format.onnx
    check_installed(format)
    if format is Format.onnx:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run_onnx(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            score, patch_map = session.run(["score", "map"], {"images": images})
            return score, patch_map

        return run_onnx
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled(images)
        return found["score"], found["map"]

    return run


def torch_session(model: Model) -> Session:
    """Return a function that runs the exported module in torch, as a reference.

    Raises:
        ConfigError: the encoder cannot be exported.
    """
    import torch

    module = _module(model)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            score, maps = module(torch.from_numpy(images))
        return score.numpy(), maps.numpy()

    return run


def parity(reference: Session, exported: Session, images: np.ndarray, batch_size: int = 8) -> Parity:
    """Run both graphs on images (N, S, S, 3) uint8 and return their largest differences."""
    scores, maps, largest = 0.0, 0.0, 0.0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        (score, patch_map), (other_score, other_map) = reference(batch), exported(batch)
        scores = float(np.maximum(scores, np.abs(score - other_score).max()))  # nan stays nan
        maps = float(np.maximum(maps, np.abs(patch_map - other_map).max()))
        largest = float(np.maximum(largest, np.abs(patch_map).max()))
    return Parity(scores, maps, largest, len(images))


def check_installed(format: Format) -> None:
    """Raise `ExtraMissingError` unless the packages that `format` needs are installed."""
    missing = [name for name in PACKAGES[format.value] if find_spec(name) is None]
    if missing:
        raise ExtraMissingError(f"export to {format.value} needs {', '.join(missing)}: pip install 'llbnad[export]'")


def _module(model: Model) -> "torch.nn.Module":
    """Return one torch module from pixels to score and map."""
    import torch

    if model.encoder.view != "squeeze" or model.region is not None:
        raise ConfigError(
            f"a model with encoder.view {model.encoder.view}{' and a region' if model.region else ''} cannot be "
            "exported: train one with view squeeze and without a region, or serve this one"
        )
    encoder = create_encoder(model.encoder, "cpu")
    layers: Any = getattr(encoder, "layers", None)
    if layers is None:
        raise ConfigError(f"encoder {model.encoder.name} cannot be exported: it has no torch function `layers`")

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = encoder.network  # type: ignore[attr-defined]  # a registered module's weights are exported

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = layers(images)
            maps = model.detector.patch_maps(Batch((), tuple(_rounded(layer) for layer in features)))
            return image_scores(maps), maps

    return Whole().eval()


def _rounded(values: "torch.Tensor") -> "torch.Tensor":
    """Round to the 11 significant bits of a 16-bit float, as the feature cache does (Veltkamp, 1968).

    This uses float32 arithmetic instead of casting to float16 and back, because OpenVINO removes such a pair of casts.
    """
    raised = values * (2.0**13 + 1)
    return raised - (raised - values)


def _onnx(model: Model) -> bytes:
    import torch

    size = model.encoder.input_size
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        _module(model),
        (example,),
        input_names=["images"],
        output_names=["score", "map"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())
