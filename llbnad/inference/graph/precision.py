"""The precision of an exported graph: weights of 16 bits, or convolutions of 8 bits.

float16: the network's weights and the detector's tensors are rounded to 16 bits before the graph is made, and stored as
         such. Computation stays in float32, because CPUs lack a fast float16. A tensor that 16 bits cannot hold stays.
int8:    the encoder's convolutions work on 8 bits (ONNX Runtime's static quantisation, one scale per channel of the
         weights). The ranges of activations come from calibration images. The detector stays in float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.detectors import create_detector
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

LABEL_LIMIT = 0.01  # largest share of calibration images whose label may change without a warning
SMALL = 256  # numbers; smaller constants stay in float32


class Precision(StrEnum):
    """How an exported graph stores or computes its weights."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


@dataclass(frozen=True)
class Agreement:
    """Labels and scores of a graph of lower precision beside those of float32, on calibration images."""

    images: int
    changed: int | None  # images whose label changed; None without a threshold
    score: float  # largest difference of a score
    limit: float = LABEL_LIMIT

    @property
    def passed(self) -> bool:
        """Whether the share of changed labels is within the limit."""
        return self.changed is None or self.changed <= self.limit * self.images

    def describe(self) -> str:
        """Return one line for people."""
        labels = "no threshold" if self.changed is None else f"{self.changed} labels changed"
        warning = "" if self.passed else f"; WARNING: more than {self.limit:.0%}: use float32, or calibrate again"
        return f"beside float32, on {self.images} images: {labels}, scores differ by up to {self.score:.2g}{warning}"


def agreement(scores: np.ndarray, others: np.ndarray, threshold: Threshold | None) -> Agreement:
    """Compare scores (N,) of a graph of lower precision with the scores of float32."""
    changed = None if threshold is None else int((threshold.labels(scores) != threshold.labels(others)).sum())
    return Agreement(len(scores), changed, float(np.abs(scores - others).max()))


def rounded(model: Model) -> Model:
    """Return the model with the detector's tensors rounded to 16 bits; the encoder is left to `round_weights`."""
    detector = create_detector(model.config)
    detector.restore({name: _half(tensor) for name, tensor in model.detector.tensors().items()})
    return replace(model, detector=detector)


def round_weights(network: "torch.nn.Module") -> None:
    """Round the weights of a network to 16 bits, in place."""
    for weights in [*network.parameters(), *network.buffers()]:
        weights.data = _half(weights.data)


def _half(tensor: "torch.Tensor") -> "torch.Tensor":
    if not tensor.is_floating_point():
        return tensor
    found = tensor.half().float()
    return found if found.isfinite().all() else tensor


def store_half(graph: Any) -> None:
    """Store constants that 16 bits hold exactly in 16 bits, in place. A cast to float32 follows each of them."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for constant in graph.initializer:
        if constant.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constant)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size >= SMALL and (half.astype(np.float32) == values).all():
            name = constant.name
            constant.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
            casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantised(core: Any, canvases: Sequence[np.ndarray]) -> Any:
    """Return the part from canvases to maps with convolutions of 8 bits.

    Args:
        core: the part as an ONNX model.
        canvases: calibration images on their canvas, (H, W, 3) uint8.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.waiting: Iterator[np.ndarray] = track(canvases, "calibrate")

        def get_next(self) -> dict[str, np.ndarray] | None:
            canvas = next(self.waiting, None)
            return None if canvas is None else {"canvases": canvas[None]}

    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "core.onnx", Path(folder) / "int8.onnx"
        onnx.save(core, before)
        quant_pre_process(before, before, skip_symbolic_shape=True)  # makes weights constants
        quantize_static(
            before,
            after,
            Reader(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(after)
