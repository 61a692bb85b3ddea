"""Options that several commands share, also those of `python -m orchestration`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Source(StrEnum):
    """Kinds of data sets."""

    elpv = "elpv"
    real_iad = "real_iad"
    image_folder = "image_folder"
    manifest = "manifest"


PLUGINS = typer.Option(
    "--plugins", help="Import a module:Class that the model file names; only for files that you trust."
)
HEAT_MAPS = typer.Option("--heatmaps/--no-heatmaps", help="Write one heat map per image, as large as the image.")
MIN_AREA = typer.Option(
    min=1, help="Fewest pixels of a region, of the original image.", show_default="what the model was calibrated for"
)
COCO = typer.Option(help="JSON file to write the regions to, in COCO's form.")
PRECISION = typer.Option(help="float32; float16 halves the file; int8 computes the encoder in 8 bits.")
IMAGE_SIZE = typer.Option(
    metavar="WIDTHxHEIGHT", help="Size of the images; only for a region of interest that depends on it."
)
CALIBRATION_IMAGES = 64  # looked at for int8 and float16
LARGEST = typer.Option(help="Most pixels of an image, width × height; larger ones are refused.")

IMAGES = Annotated[
    Path | None,
    typer.Argument(
        metavar="IMAGES", help="Folder of your images, or a CSV or JSON-lines file that names them.", show_default=False
    ),
]
ROOT = Annotated[
    Path | None, typer.Option(help="Folder of the data set; manifest: its CSV or JSON-lines file (elpv needs none).")
]
CATEGORY = Annotated[
    str | None,
    typer.Option(help="Product; for elpv: mono or poly.", show_default="the name of IMAGES, else mono"),
]
VARIANT = Annotated[str, typer.Option(help="real_iad: the JSON set.")]
IMAGE_DIR = Annotated[str, typer.Option(help="real_iad: the image folder.")]
INTENSITY = Annotated[
    str, typer.Option(help="Values shown as black and white, above 8 bits: auto, full, or LOW,HIGH such as 0,4095.")
]
PAGES = Annotated[str, typer.Option(help="A file of several pages: error (left out), first (its first page) or each.")]
