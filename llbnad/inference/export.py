"""The whole detector as one graph in ONNX or OpenVINO: from an image of any size to score, label and map.

Input:  `images` (B, H, W, 3) uint8 RGB; B, H and W are free, and all images of a batch have one size. In ONNX,
        `threshold`, `unsure_low` and `unsure_high` are inputs with the model's values as defaults.
Output: `score` (B,) float32, `label` (B,) int64 (0 normal, 1 unsure, 2 defect; absent without a threshold),
        `map` (B, H, W) float32, and `patch_map` (B, h, w), which `map` is resized from bilinearly.

The graph holds Pillow's resize (`graph.whole`), normalisation, encoder, the feature cache's rounding to 16 bits,
detector, score and decision. Its metadata, and the JSON beside it, hold the facts: settings, threshold with its
calibration scores, and the window by which values above 8 bits become the graph's 8 bits.

OpenVINO computes in bfloat16 by default where the CPU can. `load_exported` asks for float32; a server must do so too.
Runtimes add float32 numbers in different orders, so an exported detector is equal within a tolerance, not bit by bit.
If a patch is itself in PatchCore's memory, its distance is the root of a difference of equal numbers, and there the
tolerance does not hold. Parity is therefore judged on images that the detector did not learn.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llbnad.config import EncoderConfig
from llbnad.data.images import load_square
from llbnad.detectors.base import image_scores
from llbnad.encoders import create_encoder
from llbnad.errors import ConfigError
from llbnad.features.batch import Batch
from llbnad.inference.exported import FORMAT, KEY, SUFFIXES, ExtraMissingError, Format, Session
from llbnad.inference.graph.precision import (
    Agreement,
    Precision,
    agreement,
    quantised,
    round_weights,
    rounded,
    store_half,
)
from llbnad.inference.graph.whole import IR_VERSION, OPSET, decision, resize
from llbnad.model.model import Model
from llbnad.utils.files import replacing, write_json
from llbnad.utils.progress import track

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4  # largest difference that counts as equal; relative to the largest value if that is above 1
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
KNOWN = ("name", "input_size", "layers")  # settings of an encoder that the graph follows


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


@dataclass(frozen=True)
class Written:
    """The files of an export, and how far a lower precision agrees with float32."""

    files: dict[Format, Path]
    agreement: Agreement | None  # None for float32, and without calibration images


def export(
    model: Model,
    formats: Sequence[Format],
    out: Path,
    precision: Precision = Precision.float32,
    calibration: Sequence[np.ndarray] = (),
) -> Written:
    """Write the graph in each of `formats`, and its JSON, into the folder `out`.

    Args:
        model: the trained model.
        formats: formats to write.
        out: folder to write to.
        precision: `float32`, or a lower one (`graph.precision`).
        calibration: images (H, W, 3) uint8 like those learnt; int8 needs them, float16 is judged on them.

    Raises:
        ExtraMissingError: a package of the extra `export` is not installed.
        ConfigError: the model cannot be exported, or int8 has no calibration images.
    """
    for format in formats:
        check_installed(format)
    refuse(model)
    if precision is Precision.int8:
        check_installed(Format.onnx)
        if not len(calibration):
            raise ConfigError("precision int8 needs images to calibrate on, got none: name a folder of normal images")
    squares = [load_square(image, model.encoder.input_size) for image in calibration]
    graph = _whole(model, precision, squares)
    stem = model.config.name if precision is Precision.float32 else f"{model.config.name}.{precision.value}"
    facts = {**_facts(model), "precision": precision.value}
    found = None
    if precision is not Precision.float32 and squares:
        # the graph of lower precision beside torch's float32
        session, reference = _session(graph), torch_session(model)
        scores, others = (
            np.concatenate([run(one[None])[0] for one in track(squares, name)])
            for name, run in ((precision.value, session), ("float32", reference))
        )
        found = agreement(scores, others, model.threshold)
        facts["agreement"] = {**vars(found), "passed": found.passed}
    text = json.dumps(facts, sort_keys=True)
    graph.metadata_props.add(key=KEY, value=text)
    targets = {format: out / f"{stem}{SUFFIXES[format.value]}" for format in formats}
    out.mkdir(parents=True, exist_ok=True)
    content = graph.SerializeToString(deterministic=True)
    if Format.onnx in targets:
        with replacing(targets[Format.onnx]) as temporary:
            temporary.write_bytes(content)
    if Format.openvino in targets:
        import openvino

        intermediate = openvino.Core().read_model(content)
        intermediate.set_rt_info(text, [KEY])
        openvino.save_model(intermediate, targets[Format.openvino], compress_to_fp16=False)
    write_json(facts, out / f"{stem}.json")
    return Written(targets, found)


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


def _facts(model: Model) -> dict[str, Any]:
    limits, pixels = model.threshold, model.pixel_threshold
    return {
        "format": FORMAT,
        "input": {"images": ["batch", "height", "width", 3], "type": "uint8 RGB"},
        "output": {"score": ["batch"], "label": ["batch"], "map": ["batch", "height", "width"],
                   "patch_map": ["batch", "rows", "columns"]},
        "labels": ["normal", "unsure", "defect"],
        "encoder": model.encoder.model_dump(mode="json"),
        "detector": model.config.model_dump(mode="json"),
        "threshold": None if limits is None else limits.value,
        # scores from the first to the second number are unsure; null if none are
        "unsure": [limits.unsure_low, limits.unsure_high] if limits is not None and limits.unsure else None,
        "calibration": None if limits is None else {"summary": limits.summary(), "scores": limits.scores.tolist()},
        "pixel_calibration": None
        if pixels is None
        else {"summary": pixels.summary(), "levels": pixels.levels.scores.tolist()},
        "window": None if model.window is None else list(model.window),
        "opset": OPSET,
    }  # fmt: skip


def torch_session(model: Model) -> Session:
    """Return a function that runs the exported module in torch, as a reference.

    Raises:
        ConfigError: the encoder cannot be exported.
    """
    import torch

    module = _module(model)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        squares = np.stack([load_square(image, model.encoder.input_size) for image in images])
        with torch.inference_mode():
            score, maps = module(torch.from_numpy(squares))
        return score.numpy(), maps.numpy()

    return run


def parity(reference: Session, exported: Session, images: Sequence[np.ndarray], batch_size: int = 8) -> Parity:
    """Run both graphs on images (H, W, 3) uint8 of any sizes and return their largest differences."""
    scores, maps, largest = 0.0, 0.0, 0.0
    batches = []
    for _, alike in groupby(images, key=np.shape):
        members = list(alike)
        batches += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
    for members in track(batches, "compare with torch", unit="batch"):
        batch = np.stack(members)
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


def _module(model: Model, half: bool = False) -> "torch.nn.Module":
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

    return Whole().eval()


def _rounded(values: "torch.Tensor") -> "torch.Tensor":
    """Round to the 11 significant bits of a 16-bit float, as the feature cache does (Veltkamp, 1968).

    This uses float32 arithmetic instead of casting to float16 and back, because OpenVINO removes such a pair of casts.
    """
    raised = values * (2.0**13 + 1)
    return raised - (raised - values)


def _whole(model: Model, precision: Precision, squares: Sequence[np.ndarray]) -> Any:
    """Return the graph from images to all outputs, as an ONNX model. `squares` are images (S, S, 3) to calibrate on."""
    import onnx
    from onnx import TensorProto, helper

    core = _core(model, precision is Precision.float16)
    if precision is Precision.int8:
        core = quantised(core, squares)
    first, last = resize(model.encoder.input_size), decision()
    # the parts keep their inputs and outputs, by which they are joined
    middle, last = (
        onnx.compose.add_prefix(part, prefix, rename_inputs=False, rename_outputs=False)
        for part, prefix in ((core, "core/"), (last, "decision/"))
    )
    limits = model.threshold
    unsure = (limits.unsure_low, limits.unsure_high) if limits is not None and limits.unsure else (np.inf, -np.inf)
    values = (np.inf if limits is None else limits.value, *unsure)
    names = ("threshold", "unsure_low", "unsure_high")
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in names]
    defaults = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in zip(names, values, strict=True)
    ]
    parts = (first.graph, middle.graph, last.graph)
    graph = helper.make_graph(
        [node for part in parts for node in part.node],
        "llbnad",
        [*first.graph.input, *inputs],
        [*middle.graph.output, *(one for one in last.graph.output if limits is not None or one.name != "label")],
        [*(one for part in parts for one in part.initializer), *defaults],
    )
    if precision is Precision.float16:
        store_half(graph)
    opsets = {one.domain: one for one in [*core.opset_import, helper.make_opsetid("", OPSET)]}
    return helper.make_model(
        graph, opset_imports=list(opsets.values()), ir_version=IR_VERSION, functions=core.functions
    )


def _session(graph: Any) -> Session:
    """Return a function that runs an ONNX model on squares."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, patch_map = session.run(["score", "patch_map"], {"images": images})
        return score, patch_map

    return run


def _core(model: Model, half: bool) -> Any:
    """Return the part from squares (B, S, S, 3) uint8 to score and patch map, as an ONNX model."""
    import torch

    size = model.encoder.input_size
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        _module(model, half),
        (example,),
        input_names=["squares"],
        output_names=["score", "patch_map"],
        dynamic_shapes={"squares": {0: torch.export.Dim("batch")}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto
