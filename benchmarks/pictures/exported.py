"""Picture `export.jpg`: the same images by the model file, by its ONNX graph, and in int8."""

from pathlib import Path

import numpy as np

from benchmarks.pictures.demo import Demo, LeftOutError
from benchmarks.pictures.tiles import CALM, as_jpeg, evenly, tile
from llbnad.data.images import load_rgb
from llbnad.evaluation.figures import contact_sheet
from llbnad.inference.export import export
from llbnad.inference.exported import Exported, ExtraMissingError, Format
from llbnad.inference.graph.precision import Precision
from llbnad.inference.predict import Predictor

CALIBRATED = 24  # images that int8 is calibrated on


def draw(demo: Demo, out: Path) -> None:
    """Draw the same images by the model file, by its ONNX graph, and in int8."""
    known = [np.asarray(load_rgb(path)) for path in demo.paths(demo.tested(False).tail(CALIBRATED))]
    defects = evenly(demo.tested(True).head(30), 2)
    paths = demo.paths(defects)
    try:
        graph = Exported.load(export(demo.model, [Format.onnx], demo.work).files[Format.onnx])
        written = export(demo.model, [Format.onnx], demo.work, Precision.int8, known)
    except ExtraMissingError as error:
        raise LeftOutError(str(error)) from None
    ways: dict[str, Predictor | Exported] = {
        "model file": Predictor(demo.model),
        "ONNX": graph,
        "ONNX, int8": Exported.load(written.files[Format.onnx]),
    }
    found = {name: list(one.predict(paths, demo.threshold)) for name, one in ways.items()}
    tiles = [
        tile(path, ones[place], demo.threshold, name)
        for place, path in enumerate(paths)
        for name, ones in found.items()
    ]
    title = "Two defects as three forms of one detector see them"
    contact_sheet(tiles, demo.work / "export.png", title, CALM)
    as_jpeg(demo.work / "export.png", out / "export.jpg")
