"""The whole detector as one graph in ONNX or OpenVINO: from an image of any size to score, label and map.

Input:  `images` (B, H, W, 3) uint8 RGB; B, H and W are free, and all images of a batch have one size. In ONNX,
        `threshold`, `unsure_low` and `unsure_high` are inputs with the model's values as defaults.
Output: `score` (B,) float32, `label` (B,) int64 (0 normal, 1 unsure, 2 defect; absent without a threshold),
        `map` (B, H, W) float32, and `patch_map` (B, h, w), which `map` is resized from bilinearly.

The graph holds the view with Pillow's resize (`graph.lay`), normalisation, encoder, tiles, the feature cache's rounding
to 16 bits, detector (`graph.torch_module`), region of interest, score and label (`graph.decision`). H and W are
fixed if the region depends on them. The graph's metadata, and the JSON beside it, hold the facts: settings, threshold
with its calibration scores, and the window by which values above 8 bits become the graph's 8 bits.

OpenVINO computes in bfloat16 by default where the CPU can. `load_exported` asks for float32; a server must do so too.
How far a graph may differ from the model: `llbnad.inference.parity`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from llbnad.errors import ConfigError
from llbnad.inference.exported import FORMAT, KEY, SUFFIXES, ExtraMissingError, Format
from llbnad.inference.graph.assemble import OPSET, session_of, whole_graph
from llbnad.inference.graph.precision import Agreement, Precision, agreement
from llbnad.inference.graph.torch_module import refuse
from llbnad.inference.predict import predictor_session
from llbnad.model.model import Model
from llbnad.utils.files import replacing, write_json
from llbnad.utils.progress import track

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}


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
    size: tuple[int, int] | None = None,
) -> Written:
    """Write the graph in each of `formats`, and its JSON, into the folder `out`.

    Args:
        model: the trained model.
        formats: formats to write.
        out: folder to write to.
        precision: `float32`, or a lower one (`graph.precision`).
        calibration: images (H, W, 3) uint8 like those learnt; int8 needs them, float16 is judged on them.
        size: width and height of the images that the graph will see; only a region of interest can need it.

    Raises:
        ExtraMissingError: a package of the extra `export` is not installed.
        ConfigError: the model cannot be exported, int8 has no calibration images, or the region needs a size.
        DataError: nothing of an image of this size is in the region.
    """
    for format in formats:
        check_installed(format)
    refuse(model)
    size = size_of_region(model, size)
    if precision is Precision.int8:
        check_installed(Format.onnx)
        if not len(calibration):
            raise ConfigError("precision int8 needs images to calibrate on, got none: name a folder of normal images")
    if size is not None:
        _refuse_other_sizes(calibration, size)
    graph = whole_graph(model, precision, calibration, size)
    stem = model.config.name if precision is Precision.float32 else f"{model.config.name}.{precision.value}"
    facts = {**_facts(model, size), "precision": precision.value}
    found = None
    if precision is not Precision.float32 and len(calibration):
        # the graph of lower precision beside torch's float32
        session, reference = session_of(graph), predictor_session(model)
        scores, others = (
            np.concatenate([run(one[None])[0] for one in track(calibration, name)])
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


def check_installed(format: Format) -> None:
    """Raise `ExtraMissingError` unless the packages that `format` needs are installed."""
    missing = [name for name in PACKAGES[format.value] if find_spec(name) is None]
    if missing:
        raise ExtraMissingError(f"export to {format.value} needs {', '.join(missing)}: pip install 'llbnad[export]'")


def size_of_region(model: Model, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return width and height of the only images that a model's graph takes; None if it takes any.

    Args:
        model: the trained model.
        size: the size to take if the model's region of interest depends on it.

    Raises:
        ConfigError: the region depends on the size, and none is given.
    """
    region = model.region
    if region is None or (model.encoder.view == "squeeze" and not region.depends_on_size):
        return None
    if size is None:
        raise ConfigError(
            "the region of interest depends on the size of the image, and a graph holds it for one size: give "
            "--size WIDTHxHEIGHT, or use the model file with `llbnad predict`"
        )
    if min(size) < 1:
        raise ConfigError(f"size {size[0]} × {size[1]}: expected at least 1 × 1 pixel")
    return size


def _refuse_other_sizes(images: Sequence[np.ndarray], size: tuple[int, int]) -> None:
    others = [image.shape for image in images if image.shape[:2] != size[::-1]]
    if others:
        raise ConfigError(
            f"{len(others)} of {len(images)} calibration images have another size than {size[0]} × {size[1]} pixels, "
            f"such as {others[0][1]} × {others[0][0]}: leave them out"
        )


def _facts(model: Model, size: tuple[int, int] | None) -> dict[str, Any]:
    limits, pixels = model.threshold, model.pixel_threshold
    return {
        "format": FORMAT,
        "input": {"images": ["batch", *(("height", "width") if size is None else size[::-1]), 3], "type": "uint8 RGB"},
        "output": {"score": ["batch"], "label": ["batch"], "map": ["batch", "height", "width"],
                   "patch_map": ["batch", "rows", "columns"]},
        "labels": ["normal", "unsure", "defect"],
        "encoder": model.encoder.model_dump(mode="json"),
        "detector": model.config.model_dump(mode="json"),
        "region": None if model.region is None else model.region.config.model_dump(mode="json"),
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
