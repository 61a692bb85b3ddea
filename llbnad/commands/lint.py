"""`llbnad lint`: look at a data set without training."""

from pathlib import Path
from typing import Annotated

import typer

from llbnad.commands.common_options import (
    CATEGORY,
    IMAGE_DIR,
    INTENSITY,
    LARGEST,
    PAGES,
    ROOT,
    SOURCE,
    VARIANT,
    Source,
)
from llbnad.config import USUAL_PIXELS
from llbnad.options import dataset_of


def lint(
    source: SOURCE = Source.image_folder,
    root: ROOT = None,
    category: CATEGORY = "mono",
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

    dataset = dataset_of(source.value, root, category, variant, image_dir, intensity, pages, max_pixels, "llbnad lint")
    scan, _ = read_source(dataset, None if root is None else Path(dataset.root))
    report = inspect(scan)
    for line in report.lines:
        typer.echo(line)
    if out is not None:
        write_csv(report.findings, out)
    if report.needs_decision:
        raise typer.Exit(1)
