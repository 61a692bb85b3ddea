"""`llbnad sensitivity`: which synthetic defects a model finds, and what alarms it without reason."""

from pathlib import Path
from typing import Annotated

import typer

from llbnad.commands.common_options import LARGEST, PLUGINS
from llbnad.config import USUAL_PIXELS, Runtime
from llbnad.utils.pixel_limit import limit_pixels


def sensitivity(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors).")],
    images: Annotated[list[Path], typer.Argument(help="Normal images that the model has not learnt.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")],
    count: Annotated[int, typer.Option(min=1, max=1000, help="Most images to draw on, chosen by their content.")] = 24,
    sizes: Annotated[str, typer.Option(help="Sizes in pixels, such as 4,8,16; auto: from the images' size.")] = "auto",
    contrasts: Annotated[str, typer.Option(help="Changes of grey value as shares of 255, such as 0.1,0.2.")] = "0.2",
    fpr: Annotated[float | None, typer.Option(help="Rate of false positives, in (0, 1). Default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws in other places.")] = 0,
    robustness: Annotated[
        bool, typer.Option("--robustness/--no-robustness", help="Measure false positives after harmless changes too.")
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 = all cores.")] = 0,
    plugins: Annotated[bool, PLUGINS] = False,
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
) -> None:
    """Draw synthetic defects on normal images and say which the model finds, and what alarms it without reason."""
    from llbnad.inference.image_files import find_images, refuse_own_pictures
    from llbnad.inference.predict import Predictor, threshold_of
    from llbnad.model.model import Model
    from llbnad.sensitivity.command import settings_of, write_sensitivity
    from llbnad.utils.runtime import prepare

    settings = settings_of(count, sizes, contrasts)
    paths = find_images(images)
    refuse_own_pictures(images, paths, out)
    limit_pixels(max_pixels)
    target = str(prepare(Runtime(device=device, threads=threads)))
    loaded = Model.load(model, target, plugins)
    threshold = threshold_of(loaded, fpr)
    for line in write_sensitivity(Predictor(loaded, target), paths, threshold, settings, out, seed, robustness):
        typer.echo(line)
    typer.echo(f"written to {out}")
