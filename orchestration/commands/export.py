"""Export a model of the registry, and compare the graphs with torch on real images. parity.json holds the differences.

python -m orchestration export models:/llbnad-<scenario>@champion SCENARIO --out DIR [--format onnx]
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from llbnad.data.images import load_square
from llbnad.data.manifest import window_of
from llbnad.evaluation.evaluate import images_to_evaluate
from llbnad.inference.export import Format, load_exported, parity, torch_session
from llbnad.inference.export import export as write_graphs
from llbnad.model.model import Model
from llbnad.utils.files import write_json
from llbnad.utils.hashing import stable_shuffle
from orchestration.pipeline import pipes
from orchestration.pipeline.features import allow_images
from orchestration.pipeline.outputs import read_noisy, read_purified
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.registry.store import is_address, model_file

IMAGES = 32  # compared
REPORT = "parity.json"


def export(
    model: Annotated[str, typer.Argument(help="MLflow address, or a model file (.safetensors).")],
    scenario: Annotated[str, typer.Argument(help="Whose images are compared.")],
    out: Annotated[Path, typer.Option(help="Folder for the graphs and parity.json.")],
    format: Annotated[list[Format], typer.Option(help="onnx or openvino.")] = [*Format],  # noqa: B006
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="Import module:Class that a model file names; a registered model may anyway."),
    ] = False,
) -> None:
    """Write the graphs and the differences to torch."""
    allow_images(load_params(PARAMS), scenario)
    out.mkdir(parents=True, exist_ok=True)
    loaded = Model.load(model_file(model), plugins=plugins or is_address(model))
    images = sample(scenario, loaded.encoder.input_size)
    targets = write_graphs(loaded, format, out)
    reference = torch_session(loaded)
    report: dict[str, dict[str, Any]] = {}
    for name, path in targets.items():
        found = parity(reference, load_exported(path), images)
        report[name.value] = {**vars(found), "limit": found.limit, "passed": found.passed, "file": path.name}
        print(f"{path}: score differs by {found.score:.1e}, map by {found.map:.1e}, allowed {found.limit:.1e}")
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


def sample(scenario: str, size: int) -> np.ndarray:
    """Return images (N, size, size, 3) that the detector did not learn, or any images if it learnt all.

    The choice is the same every time.
    """
    images = images_to_evaluate(read_noisy(scenario))
    kept = read_purified(scenario, "kept")["image_id"]
    unseen = images[~images["image_id"].isin(kept)]
    rows = (unseen if len(unseen) else images).set_index("image_id")
    chosen = rows.loc[stable_shuffle(rows.index, 0, "parity")[:IMAGES]].to_dict("records")
    return np.stack([load_square(Path(row["path"]), size, window_of(row)) for row in chosen])
