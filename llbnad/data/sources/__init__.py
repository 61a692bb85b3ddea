"""Sources: what turns a data set on disk into a manifest. A new one is a module with `records` and a line here."""

from pathlib import Path

from llbnad.config import Dataset, ElpvDataset, ImageFolderDataset, RealIadDataset
from llbnad.data.sources import elpv, image_folder, real_iad
from llbnad.data.sources.base import Scan, scan
from llbnad.errors import DataError

__all__ = ["Scan", "read_source"]


def read_source(dataset: Dataset, root: Path | None) -> tuple[Scan, Path]:
    """Read a data set.

    Args:
        dataset: which, and how.
        root: its folder; not needed for `elpv`, which is an installed package.

    Returns:
        the scan, and the folder its paths are relative to.

    Raises:
        DataError: the folder, the JSON or the package is missing or not of the declared form, or no image is readable.
    """
    if isinstance(dataset, ElpvDataset):
        listing = elpv.records(dataset)
    elif root is None or not root.is_dir():
        raise DataError(f"the root {root} of source {dataset.source} is not a folder: give the data set's own folder")
    elif isinstance(dataset, RealIadDataset):
        listing = real_iad.records(dataset, root)
    elif isinstance(dataset, ImageFolderDataset):
        listing = image_folder.records(dataset, root)
    else:
        raise TypeError(f"no source for {dataset!r}")
    return scan(listing), listing.root
