"""`llbnad lint`: look at a data set without training."""

from pathlib import Path
from typing import Annotated

import typer

from llbnad.commands.common_options import (
    CATEGORY,
    IMAGE_DIR,
    IMAGES,
    INTENSITY,
    LARGEST,
    PAGES,
    ROOT,
    VARIANT,
    Source,
)
from llbnad.config import USUAL_PIXELS
from llbnad.options import dataset_of, source_of


def lint(
    images: IMAGES = None,
    source: Annotated[Source | None, typer.Option(help="Kind of data set.", show_default="image_folder")] = None,
    root: ROOT = None,
    category: CATEGORY = None,
    variant: VARIANT = "realiad_jsons",
    image_dir: IMAGE_DIR = "realiad_1024",
    intensity: INTENSITY = "auto",
    pages: PAGES = "error",
    max_pixels: Annotated[int, LARGEST] = USUAL_PIXELS,
    out: Annotated[Path | None, typer.Option(help="CSV file for the list of all findings.")] = None,
) -> None:
    """Read a data set without training and report all that is odd. Exit code 1: something needs a decision."""
    from llbnad.data.lint import inspect
    from llbnad.data.sources import read_source
    from llbnad.utils.files import write_csv

    kind, root, category = source_of(images, source, root, category, Source.image_folder)
    dataset = dataset_of(kind, root, category, variant, image_dir, intensity, pages, max_pixels, "llbnad lint")
    scan, _ = read_source(dataset, None if root is None else Path(dataset.root))
    report = inspect(scan)
    for line in report.lines:
        typer.echo(line)
    if out is not None:
        write_csv(report.findings, out)
    if report.needs_decision:
        raise typer.Exit(1)
