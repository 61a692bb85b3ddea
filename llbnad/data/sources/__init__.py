"""Sources: modules that turn a data set on disk into a manifest.

To add a source, write a module with a function `records` and add a branch to `read_source`.
"""

from pathlib import Path

from llbnad.config import Dataset, ElpvDataset, ImageFolderDataset, ManifestDataset, RealIadDataset
from llbnad.data.sources import elpv, image_folder, manifest_file, real_iad
from llbnad.data.sources.records import Scan
from llbnad.data.sources.scan_files import scan
from llbnad.errors import DataError
from llbnad.utils.pixel_limit import limit_pixels_of

__all__ = ["Scan", "read_source"]


def read_source(dataset: Dataset, root: Path | None) -> tuple[Scan, Path]:
    """Read a data set. Its limit on the pixels of an image holds in this process from then on.

    Args:
        dataset: the settings of the data set.
        root: the folder of the data set; not needed for `elpv`, which is an installed package.

    Returns:
        the scan, and the folder that its paths are relative to.

    Raises:
        DataError: the folder, the JSON or the package is missing or not of the declared form, or no image is readable.
    """
    limit_pixels_of(dataset)
    if isinstance(dataset, ElpvDataset):
        listing = elpv.records(dataset)
    elif root is None or not root.is_dir():
        raise DataError(f"the root {root} of source {dataset.source} is not a folder: give the data set's own folder")
    elif isinstance(dataset, RealIadDataset):
        listing = real_iad.records(dataset, root)
    elif isinstance(dataset, ImageFolderDataset):
        listing = image_folder.records(dataset, root)
    elif isinstance(dataset, ManifestDataset):
        listing = manifest_file.records(dataset, root)
    else:
        raise TypeError(f"no source for {dataset!r}")
    return scan(listing), listing.root
