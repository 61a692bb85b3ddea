"""`llbnad export`: a model as one graph, from an image of any size to score, label and map."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from llbnad.commands.common_options import CALIBRATION_IMAGES, IMAGE_SIZE, PLUGINS, PRECISION
from llbnad.inference.exported import Format
from llbnad.inference.graph.precision import Precision
from llbnad.options import SIZE_EXPECTED, two_numbers


def export(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the graph and its JSON.")],
    format: Annotated[list[Format], typer.Option(help="onnx or openvino; may be given twice.")] = [Format.onnx],  # noqa: B006
    plugins: Annotated[bool, PLUGINS] = False,
    precision: Annotated[Precision, PRECISION] = Precision.float32,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of normal images: int8 needs them, float16 is judged on them."),
    ] = None,
    size: Annotated[str | None, IMAGE_SIZE] = None,
) -> None:
    """Write one graph from an image of any size to score, label and map (needs the extra `export`)."""
    from llbnad.data.images import load_whole
    from llbnad.inference.export import export as export_model
    from llbnad.inference.export import size_of_region
    from llbnad.inference.image_files import find_images
    from llbnad.model.model import Model

    given = None if size is None else two_numbers(size, "--size", SIZE_EXPECTED)
    loaded = Model.load(model, plugins=plugins)
    only = size_of_region(loaded, given)
    paths = [] if calibration is None else find_images([calibration])[:CALIBRATION_IMAGES]
    images = [np.asarray(load_whole(path, loaded.window)) for path in paths]
    written = export_model(loaded, format, out, precision, images, only)
    typer.echo(f"written: {', '.join(str(path) for path in written.files.values())}")
    if given != only:
        typer.echo("--size has no effect: this graph takes images of any size")
    if written.agreement is not None:
        typer.echo(written.agreement.describe())
