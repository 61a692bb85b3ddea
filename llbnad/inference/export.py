"""The whole detector as one graph, ONNX or OpenVINO: pixels in; image score and patch map out.

In:  `images` (B, S, S, 3) uint8 RGB, S the encoder's input size, B free. Resizing stays outside: Pillow's antialiased
     bilinear filter, which training used, rounds to 8 bit and exists in no runtime, and another filter moves scores.
Out: `score` (B,) and `map` (B, h, w), float32. Normalisation, encoder, rounding of features to 16 bit as in the feature
     cache, detector and score are inside. `<name>.json` beside the graph holds size, detector and threshold.

OpenVINO computes in bfloat16 by default where the CPU can; `load_exported` asks for float32, so must whoever serves it.
Runtimes add float32 numbers in other orders, so an exported detector is equal within a tolerance, not bit by bit. Where
a patch stands in PatchCore's memory itself, its distance is a difference of equal numbers under a root: there maps of
training images differ by up to 1e-3. Parity is therefore judged on images the detector was not trained on.
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
TOLERANCE = 1e-4  # largest difference that counts as the same, for values up to 1; relative to the largest value above
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}

Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # images (B, S, S, 3) -> scores (B,), maps (B, h, w)


class Format(StrEnum):
    """What a detector can be exported to."""

    onnx = "onnx"
    openvino = "openvino"


SUFFIXES = {Format.onnx: ".onnx", Format.openvino: ".xml"}


class ExtraMissingError(LlbnadError):
    """A package of the extra `export` is not installed."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences between an exported graph and a reference."""

    score: float
    map: float
    largest: float  # value of the reference's maps: Mahalanobis distances reach 50, cosine-like ones 2
    images: int

    @property
    def limit(self) -> float:
        """The difference that is allowed."""
        return TOLERANCE * max(1.0, self.largest)

    @property
    def passed(self) -> bool:
        """Whether images were compared, and both differences are within the limit; nan is not."""
        return self.images > 0 and self.score <= self.limit and self.map <= self.limit


def export(model: Model, formats: Sequence[Format], out: Path) -> dict[Format, Path]:
    """Write the graph in `formats`, and its JSON, into `out`; returns the graphs' files.

    Raises:
        ExtraMissingError: the extra `export` is not installed.
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
    size = model.encoder.input_size
    facts = {
        "input": {"images": ["batch", size, size, 3], "type": "uint8 RGB"},
        "output": {"score": ["batch"], "map": ["batch", "height", "width"], "type": "float32"},
        "encoder": model.encoder.model_dump(mode="json"),
        "detector": model.config.model_dump(mode="json"),
        "threshold": model.threshold.value if model.threshold else None,
        "opset": OPSET,
    }
    write_json(facts, out / f"{model.config.name}.json")
    return targets


def load_exported(path: Path, threads: int = 0) -> Session:
    """A graph ready to run on the CPU in float32.

    Args:
        path: .onnx, or .xml of OpenVINO.
        threads: CPU threads; 0 = the runtime's own choice.
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
    """The module that is exported, run by torch."""
    import torch

    module = _module(model)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            score, maps = module(torch.from_numpy(images))
        return score.numpy(), maps.numpy()

    return run


def parity(reference: Session, exported: Session, images: np.ndarray, batch_size: int = 8) -> Parity:
    """Run both on real images (N, S, S, 3) uint8 and compare."""
    scores, maps, largest = 0.0, 0.0, 0.0
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        (score, patch_map), (other_score, other_map) = reference(batch), exported(batch)
        scores = float(np.maximum(scores, np.abs(score - other_score).max()))  # nan stays nan
        maps = float(np.maximum(maps, np.abs(patch_map - other_map).max()))
        largest = float(np.maximum(largest, np.abs(patch_map).max()))
    return Parity(scores, maps, largest, len(images))


def check_installed(format: Format) -> None:
    """Raise `ExtraMissingError` unless what `format` needs is there."""
    missing = [name for name in PACKAGES[format.value] if find_spec(name) is None]
    if missing:
        raise ExtraMissingError(f"export to {format.value} needs {', '.join(missing)}: pip install 'llbnad[export]'")


def _module(model: Model) -> "torch.nn.Module":
    """Pixels to score and map, as one torch module."""
    import torch

    encoder = create_encoder(model.encoder, "cpu")
    layers: Any = getattr(encoder, "layers", None)
    if layers is None:
        raise ConfigError(f"encoder {model.encoder.name} cannot be exported: it has no torch function `layers`")

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = encoder.network  # type: ignore[attr-defined]  # registered, so that its weights are exported

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = layers(images)
            maps = model.detector.patch_maps(Batch((), tuple(_rounded(layer) for layer in features)))
            return image_scores(maps), maps

    return Whole().eval()


def _rounded(values: "torch.Tensor") -> "torch.Tensor":
    """To the 11 significant bits of a 16-bit float, as the feature cache does, in float32 arithmetic (Veltkamp, 1968).

    Not by casting there and back: OpenVINO removes such a pair, and PaDiM's scores then move by 1e-3.
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
