"""The images of the measurements: solar cells of the installed package. A fifth of the training images is defective."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.config import ElpvDataset, InjectedNoise
from llbnad.data.contaminate import contaminate
from llbnad.data.images import load_rgb
from llbnad.data.sources import elpv, read_source
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan

ALPHA = 0.2


def solar_cells() -> tuple[pd.DataFrame, Path]:
    """Return the manifest of 412 training and 325 test images, and the root of its paths."""
    found, root = read_source(ElpvDataset(), None)
    return contaminate(found.manifest, InjectedNoise(ratio=ALPHA), 0), root


def paths(manifest: pd.DataFrame, root: Path, split: str) -> list[Path]:
    """Return the files of the images of `split`, train or test."""
    return [root / path for path in manifest["path"][manifest["split"] == split]]


def augmented(folder: Path, count: int) -> tuple[pd.DataFrame, Path]:
    """Write `count` distinct images to `folder`: crops of solar cells, flipped and turned. Return manifest and root."""
    listing = elpv.records(ElpvDataset())
    rng = np.random.default_rng(0)
    records = []
    folder.mkdir(parents=True)
    for number in range(count):
        source = listing.records[number % len(listing.records)]
        image = load_rgb(listing.root / source.path)
        left, top = rng.integers(0, 30, 2)
        crop = np.asarray(image)[top : top + 270, left : left + 270]
        turned = np.rot90(crop, int(rng.integers(4)))[:, :: rng.choice([-1, 1])]
        name = f"{number:05d}.png"
        Image.fromarray(np.ascontiguousarray(turned)).convert("L").save(folder / name, compress_level=1)
        records.append(Record(name, "augmented", name, anomaly_class=source.anomaly_class))
    return scan(Listing(folder, records)).manifest.assign(split="train"), folder
