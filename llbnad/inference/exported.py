"""An exported detector at work: one file of ONNX or OpenVINO scores images of any size. torch is not imported.

The file holds its facts as JSON: in ONNX under the key `llbnad` of the metadata, in OpenVINO's XML as runtime info.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from llbnad.config import Window
from llbnad.data.images import load_whole
from llbnad.errors import ConfigError, DataError, LlbnadError, ModelMissingError
from llbnad.inference.prediction import Prediction, Source
from llbnad.inference.scorer import Scorer
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import Threshold

FORMAT, KEY = "llbnad graph 2", "llbnad"
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
RUNTIMES = {".onnx": ("onnxruntime", "onnxruntime"), ".xml": ("openvino", "openvino")}
READ = 8  # images read ahead at once

Session = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # images (B, H, W, 3) -> scores (B,), maps (B, h, w)


class ExtraMissingError(LlbnadError):
    """A package that the export needs is not installed."""


class Format(StrEnum):
    """A format that a detector can be exported to."""

    onnx = "onnx"
    openvino = "openvino"


def is_exported(path: Path) -> bool:
    """Return whether a file's name is that of an exported graph."""
    return path.suffix in RUNTIMES


@dataclass(frozen=True)
class Exported(Scorer[np.ndarray]):
    """An exported detector, ready to score on the CPU in float32."""

    facts: dict[str, Any]
    session: Session

    @classmethod
    def load(cls, path: Path, device: str = "auto", threads: int = 0) -> "Exported":
        """Open a graph.

        Args:
            path: file of the graph, .onnx or OpenVINO's .xml.
            device: auto or cpu.
            threads: CPU threads; 0 = the runtime's own choice.

        Raises:
            ModelMissingError: the file does not exist.
            ExtraMissingError: the runtime is not installed.
            ConfigError: the device is no CPU.
            DataError: the file is damaged, or no graph of this release.
        """
        if device not in ("auto", "cpu"):
            raise ConfigError(f"device is {device!r}, but an exported graph runs on the cpu: leave --device out")
        if not path.is_file():
            raise ModelMissingError(f"{path} does not exist: `llbnad export` writes such a file")
        name, package = RUNTIMES[path.suffix]
        if find_spec(name) is None:
            raise ExtraMissingError(f"{path} needs {package}: pip install {package}")
        try:
            text, session = _onnx(path, threads) if path.suffix == ".onnx" else _openvino(path, threads)
            facts = json.loads(text)
        except Exception as error:  # the runtimes' errors have no common class
            raise DataError(f"{path} is no exported detector: {' '.join(str(error).split())[:300]}") from None
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise DataError(f"{path} was exported by another release, expected {FORMAT!r}: export the model again")
        return cls(facts, session)

    @property
    def window(self) -> Window | None:
        """Values above 8 bits that are black and white; None if the training images had none."""
        return None if self.facts["window"] is None else tuple(self.facts["window"])

    @property
    def threshold(self) -> Threshold | None:
        """The model's threshold with its calibration scores, so that another false-positive rate can be asked for."""
        found = self.facts["calibration"]
        return None if found is None else Threshold.restore(found["summary"], np.array(found["scores"], np.float32))

    @property
    def pixel_threshold(self) -> PixelThreshold | None:
        """The level above which pixels belong to regions; None if the model has none."""
        found = self.facts["pixel_calibration"]
        return (
            None if found is None else PixelThreshold.restore(found["summary"], np.array(found["levels"], np.float32))
        )

    @property
    def read_at_once(self) -> int:
        """Images that are read ahead."""
        return READ

    def read_image(self, source: Source) -> np.ndarray:
        """Read one image: (H, W, 3) uint8."""
        image = load_whole(source, self.window)
        height, width = self.facts["input"]["images"][1:3]
        if isinstance(width, int) and image.size != (width, height):
            raise DataError(
                f"the image has {image.size[0]} × {image.size[1]} pixels, but the graph was exported for {width} × "
                f"{height}: export it with --size {image.size[0]}x{image.size[1]}, or use the model file"
            )
        return np.asarray(image)

    def score_images(self, images: Sequence[np.ndarray], threshold: Threshold | None) -> Iterable[Prediction]:
        """Yield one prediction without regions per image, in their order: they may have different sizes."""
        for image in images:
            scores, maps = self.session(image[None])
            label = "" if threshold is None else str(threshold.labels(scores)[0])
            yield Prediction(float(scores[0]), maps[0], label, size=(image.shape[1], image.shape[0]))


def load_exported(path: Path, threads: int = 0) -> Session:
    """Return a function that runs a graph; see `Session` and `Exported.load`."""
    return Exported.load(path, threads=threads).session


def _onnx(path: Path, threads: int) -> tuple[str, Session]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # no warnings about constants that it folds
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, patch_map = session.run(["score", "patch_map"], {"images": images})
        return score, patch_map

    return session.get_modelmeta().custom_metadata_map[KEY], run


def _openvino(path: Path, threads: int) -> tuple[str, Session]:
    import openvino

    # OpenVINO computes in bfloat16 by default where the CPU can
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", settings)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled(images)
        return found["score"], found["patch_map"]

    return model.get_rt_info([KEY]).astype(str), run
