"""Images that a program or a command names: a folder, files or a manifest."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from llbnad.config import Files, ImageFolderDataset, ManifestDataset
from llbnad.data.manifest import normalise
from llbnad.data.sources import image_folder, manifest_file
from llbnad.data.sources.manifest_rows import JSON_SUFFIXES
from llbnad.data.sources.records import Listing, Record, Scan
from llbnad.data.sources.scan_files import scan
from llbnad.errors import DataError
from llbnad.utils.pixel_limit import limit_pixels_of

MANIFEST_SUFFIXES = JSON_SUFFIXES | {".csv", ".tsv"}
Images = str | Path | Sequence[str | Path] | pd.DataFrame


def kind_and_name(images: Path) -> tuple[Literal["image_folder", "manifest"], str]:
    """Return which source reads `images`, and their name as a product.

    Args:
        images: a folder, or a file that names images.

    Raises:
        DataError: `images` is neither.
    """
    if images.is_dir():
        return "image_folder", images.resolve().name or "images"
    if images.suffix.lower() in MANIFEST_SUFFIXES:
        return "manifest", images.stem
    raise DataError(f"{images} is not a folder: give a folder of images, or a CSV or JSON-lines file that names them")


def read_given(images: Images, root: Path, files: Files) -> tuple[Scan, Path]:
    """Read images that are given as a folder, as a file that names them, as files or as a manifest.

    Args:
        images: a folder (`llbnad.data.sources.image_folder`); a CSV or JSON-lines file that names images
            (`llbnad.data.sources.manifest_file`); image files, which have no label and are samples of their own; or a
            manifest (`llbnad.data.manifest`), whose files are not read here.
        root: folder that a manifest's paths are relative to.
        files: how the files of a folder or a list are read.

    Returns:
        the scan, and the folder that its paths are relative to.

    Raises:
        DataError: there is no folder, no file or no usable image, or the manifest lacks a column.
    """
    if isinstance(images, pd.DataFrame):
        return Scan(normalise(images), pd.DataFrame(columns=["path", "reason", "detail"])), root
    limit_pixels_of(files)
    if not isinstance(images, str | Path):
        listing = _files([Path(file) for file in images], files)
    else:
        given = Path(images)
        kind, name = kind_and_name(given)
        if kind == "image_folder":
            dataset = ImageFolderDataset(root=str(given), category=name, **dict(files))
            listing = image_folder.records(dataset, given)
        else:
            named = ManifestDataset(root=str(given.parent), file=given.name, category=name, **dict(files))
            listing = manifest_file.records(named, given.parent)
    return scan(listing), listing.root


def _files(files: Sequence[Path], how: Files) -> Listing:
    if not files:
        raise DataError("no image is given: expected a folder, image files or a manifest")
    if len({file.is_absolute() for file in files}) > 1:
        files = [file.absolute() for file in files]
    root = Path(os.path.commonpath([file.parent for file in files]))
    names = [file.relative_to(root).as_posix() for file in files]
    return Listing(root, [Record(name, root.name, sample_id=name) for name in names], files=how)
