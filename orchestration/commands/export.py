"""Export a model of the registry, and compare the graphs with torch on real images. parity.json holds the differences.

python -m orchestration export models:/llbnad-<scenario>@champion --out DIR [--format onnx] [--precision int8]
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from llbnad.commands.common_options import CALIBRATION_IMAGES, IMAGE_SIZE, PRECISION
from llbnad.data.images import load_whole
from llbnad.data.manifest import window_of
from llbnad.errors import ConfigError
from llbnad.evaluation.evaluate import images_to_evaluate
from llbnad.inference.export import check_installed, size_of_region
from llbnad.inference.export import export as write_graphs
from llbnad.inference.exported import Format, load_exported
from llbnad.inference.graph.precision import Precision
from llbnad.inference.graph.torch_module import refuse
from llbnad.inference.parity import parity
from llbnad.inference.predict import predictor_session
from llbnad.model.model import Model
from llbnad.options import SIZE_EXPECTED, two_numbers
from llbnad.utils.files import write_json
from llbnad.utils.hashing import stable_shuffle
from orchestration.pipeline import pipes
from orchestration.pipeline.features import allow_images
from orchestration.pipeline.outputs import read_noisy, read_purified
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.registry.store import is_address, model_file, model_name

IMAGES = 32  # compared
REPORT = "parity.json"


def export(
    model: Annotated[str, typer.Argument(help="MLflow address, or a model file (.safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the graphs and parity.json.")],
    format: Annotated[list[Format], typer.Option(help="onnx or openvino.")] = [*Format],  # noqa: B006
    scenario: Annotated[
        str, typer.Argument(help="Whose images are compared.", show_default="the scenario that the address names")
    ] = "",
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="Import module:Class that a model file names; a registered model may anyway."),
    ] = False,
    precision: Annotated[Precision, PRECISION] = Precision.float32,
    size: Annotated[str | None, IMAGE_SIZE] = None,
) -> None:
    """Write a registered model as ONNX and OpenVINO graphs, with their differences to torch on real images.

    Images that were kept calibrate a lower precision.

    Without --size, a region of interest gets the size of the scenario's images if all have the same.
    """
    scenario = scenario or _named(model)
    allow_images(load_params(PARAMS), scenario)
    loaded = Model.load(model_file(model), plugins=plugins or is_address(model))
    for one in format:
        check_installed(one)
    refuse(loaded)  # before images are read, which may take minutes
    given = _only_size(scenario) if size is None else two_numbers(size, "--size", SIZE_EXPECTED)
    only = size_of_region(loaded, given)
    images = sample(scenario, only)
    out.mkdir(parents=True, exist_ok=True)
    learnt = [] if precision is Precision.float32 else kept(scenario, only)
    written = write_graphs(loaded, format, out, precision, learnt, only)
    if only is not None:
        print("the graphs take images of {} × {} pixels, because the region depends on the size".format(*only))
    elif size is not None:
        print("--size has no effect: these graphs take images of any size")
    reference = predictor_session(loaded)
    report: dict[str, dict[str, Any]] = {}
    for name, path in written.files.items():
        found = parity(reference, load_exported(path), images)
        report[name.value] = {**vars(found), "limit": found.limit, "passed": found.passed, "file": path.name}
        print(f"{path}: score differs by {found.score:.1e}, map by {found.map:.1e}, allowed {found.limit:.1e}")
    if written.agreement is not None:
        print(written.agreement.describe())
    write_json(report, out / REPORT)
    _tell_dagster(model, out, report)


def _tell_dagster(model: str, out: Path, report: Mapping[str, Mapping[str, Any]]) -> None:
    keys = ("score", "map", "limit", "images", "passed")
    columns = ("format", "score differs", "map differs", "allowed", "images", "passed")
    differences = pipes.table(columns, [(name, *(one[key] for key in keys)) for name, one in report.items()])
    largest = ", ".join(f"{name} {max(one['score'], one['map']):.1e}" for name, one in report.items())
    check = pipes.Check(
        pipes.PARITY,
        all(one["passed"] for one in report.values()),
        f"largest differences to torch: {largest}",
        metadata={"differences": differences},
    )
    pipes.report({"model": model, "folder": str(out), "parity": differences}, checks=[check])


def _named(model: str) -> str:
    """Return the scenario in an address such as models:/llbnad-bottle@champion."""
    found = re.match(rf"models:/{re.escape(model_name(''))}([^/@]+)[/@]", model)
    if found is None:
        raise ConfigError(f"{model} names no scenario: give the scenario whose images are compared as second argument")
    return found[1]


def _only_size(scenario: str) -> tuple[int, int] | None:
    """Return width and height of a scenario's images; None if they have several sizes."""
    sizes = read_noisy(scenario)[["width", "height"]].drop_duplicates()
    return (int(sizes["width"].iloc[0]), int(sizes["height"].iloc[0])) if len(sizes) == 1 else None


def sample(scenario: str, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Return images (H, W, 3) that the detector did not learn, or any images if it learnt all.

    The choice is the same every time.

    Args:
        scenario: its name.
        size: width and height of the images; None: any.

    Raises:
        ConfigError: no image has this size.
    """
    images = _sized(images_to_evaluate(read_noisy(scenario)), scenario, size)
    learnt = read_purified(scenario, "kept")["image_id"]
    unseen = images[~images["image_id"].isin(learnt)]
    return _load(unseen if len(unseen) else images, IMAGES, "parity")


def kept(scenario: str, size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Return images (H, W, 3) that were kept for training. Arguments and errors are those of `sample`."""
    images = _sized(read_noisy(scenario), scenario, size)
    learnt = read_purified(scenario, "kept")["image_id"]
    return _load(images[images["image_id"].isin(learnt)], CALIBRATION_IMAGES, "calibration")


def _sized(images: pd.DataFrame, scenario: str, size: tuple[int, int] | None) -> pd.DataFrame:
    if size is None:
        return images
    found = images[(images["width"] == size[0]) & (images["height"] == size[1])]
    if found.empty:
        raise ConfigError(
            f"scenario {scenario} has no image of {size[0]} × {size[1]} pixels to compare on: give the --size of its "
            f"images, such as {images['width'].iloc[0]}x{images['height'].iloc[0]}"
        )
    return found


def _load(images: pd.DataFrame, count: int, purpose: str) -> list[np.ndarray]:
    rows = images.set_index("image_id")
    chosen = rows.loc[stable_shuffle(rows.index, 0, purpose)[:count]].to_dict("records")
    return [np.asarray(load_whole(Path(row["path"]), window_of(row))) for row in chosen]
