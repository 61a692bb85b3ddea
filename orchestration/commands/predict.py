"""Score images with a model of the registry: `llbnad predict` for addresses such as models:/llbnad-line@champion.

python -m orchestration predict models:/llbnad-<scenario>@champion IMAGES… --out DIR
"""

from pathlib import Path
from typing import Annotated

import typer

from llbnad.commands.common_options import COCO, HEAT_MAPS, LARGEST, MIN_AREA
from llbnad.commands.predict import predict as predict_images
from llbnad.config import USUAL_PIXELS
from orchestration.pipeline import pipes
from orchestration.registry.store import is_address, model_file


def predict(
    model: Annotated[str, typer.Argument(help="MLflow address, or a model file (.safetensors).")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, regions.jsonl and pictures.")],
    fpr: Annotated[
        float | None,
        typer.Option(help="Sensitivity: false positives accepted, in (0, 1); more find more. Default: the model's."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="Import module:Class that a model file names; a registered model may anyway."),
    ] = False,
    pages: Annotated[
        str, typer.Option(help="A file of several pages: error (its row says so), first (its first page) or each.")
    ] = "error",
    heatmaps: Annotated[bool, HEAT_MAPS] = True,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
    min_area: Annotated[int | None, MIN_AREA] = None,
    coco: Annotated[Path | None, COCO] = None,
) -> None:
    """Score images and call them normal, unsure or defect: tables with regions, and one heat map per image."""
    may_import = plugins or is_address(model)
    predict_images(
        model_file(model),
        images,
        out,
        fpr,
        device,
        threads,
        may_import,
        pages,
        heatmaps=heatmaps,
        max_pixels=max_pixels,
        min_area=min_area,
        coco=coco,
    )
    pipes.report({"model": model, "folder": ", ".join(map(str, images))})
