"""`llbnad predict`: score images with a model file or an exported graph."""

from pathlib import Path
from typing import Annotated

import typer

from llbnad.commands.common_options import COCO, HEAT_MAPS, LARGEST, MIN_AREA, PLUGINS
from llbnad.config import USUAL_PIXELS, Files, Runtime, parse
from llbnad.errors import LlbnadError
from llbnad.inference.exported import Exported, is_exported
from llbnad.utils.pixel_limit import limit_pixels


def predict(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors), or exported graph (.onnx, .xml).")],
    images: Annotated[list[Path], typer.Argument(help="Image files or folders.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, regions.jsonl and heatmaps/.")],
    fpr: Annotated[
        float | None,
        typer.Option(
            help="Rate of false positives to accept, in (0, 1); more find more defects. Default: the model's."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
    pages: Annotated[
        str, typer.Option(help="A file of several pages: error (its row says so), first (its first page) or each.")
    ] = "error",
    heatmaps: Annotated[bool, HEAT_MAPS] = True,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
    min_area: Annotated[int | None, MIN_AREA] = None,
    coco: Annotated[Path | None, COCO] = None,
) -> None:
    """Score images, call them normal, unsure or defect, and find regions. Write tables, and one heat map per image."""
    from llbnad.inference.image_files import find_images, refuse_own_pictures
    from llbnad.inference.predict import threshold_of
    from llbnad.inference.region_files import pixel_threshold_of, region_lines
    from llbnad.inference.write import predict as predict_images
    from llbnad.model.model import Model
    from llbnad.model.threshold import DEFECT_LABEL, UNSURE_LABEL
    from llbnad.utils.runtime import prepare

    paths = find_images(images, parse(Files, {"pages": pages}, "llbnad predict").pages)
    refuse_own_pictures(images, paths, out)
    limit_pixels(max_pixels)
    loaded: Model | Exported
    if is_exported(model):  # without torch, whose import takes seconds
        target, loaded = "cpu", Exported.load(model, device, threads)
    else:
        target = str(prepare(Runtime(device=device, threads=threads)))
        loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    pixels = pixel_threshold_of(loaded, fpr, wanted=min_area is not None or coco is not None)
    table = predict_images(
        loaded,
        paths,
        out,
        target,
        threshold=threshold,
        heatmaps=heatmaps,
        pixels=pixels,
        min_area=min_area,
        coco=coco,
    )
    failed = int((table["error"] != "").sum())
    defects, unsure = (int((table["label"] == label).sum()) for label in (DEFECT_LABEL, UNSURE_LABEL))
    called = "" if threshold is None else f" ({defects} called defects, {unsure} unsure)"
    typer.echo(f"{len(table) - failed} images scored{called}, {failed} unreadable; written to {out}")
    typer.echo(threshold.describe() if threshold is not None else "the model has no threshold: scores only")
    for line in region_lines(table, pixels, min_area):
        typer.echo(line)
    if failed == len(table):
        raise LlbnadError("none of the images could be read; predictions.csv says why")
