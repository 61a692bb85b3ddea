"""A folder of images as a data set of params.yaml, read first as the stages `raw` and `noisy` will read it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llbnad.config import ImageFolderDataset, InjectedNoise, Noise, parse
from llbnad.data.contaminate import contaminate
from llbnad.data.manifest import has_labels, is_anomalous, training_images
from llbnad.data.sources import read_source
from llbnad.errors import ConfigError, DataError
from orchestration.pipeline.params import SCENARIO_NAME, Params, why_no_root
from orchestration.pipeline.paths import INCOMING, PARAMS

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # files in the log; `left_out.csv` of stage `raw` lists all


def is_folder(root: Path, given: str) -> bool:
    """Return whether a text means a folder, and no name of a data set."""
    return not SCENARIO_NAME.fullmatch(given) or (root / given).is_dir()


def known_as(params: Params, folder: str) -> str | None:
    """Return the name of the data set of params.yaml that holds this folder of images, or None."""
    wanted = os.path.normpath(folder)
    named = {
        os.path.normpath(one.root): name for name, one in params.datasets.items() if isinstance(one, ImageFolderDataset)
    }
    return named.get(wanted)


def folder_entry(params: Params, name: str, folder: str) -> ImageFolderDataset:
    """Return the entry `name` of `datasets` for a folder of images.

    Raises:
        ConfigError: the name belongs to another data set, or the folder is an inbox, whose line becomes a scenario by
            itself, or holds what the pipeline writes.
    """
    if name in params.datasets:
        other = params.datasets[name].root
        raise ConfigError(f"{PARAMS} has a data set {name} already, with root {other}: choose another name")
    if Path(os.path.normpath(folder)).is_relative_to(INCOMING):
        raise ConfigError(f"{folder} is an inbox: its line becomes a scenario by itself; give a folder of your own")
    if reason := why_no_root(folder):
        raise ConfigError(f"the folder is {folder!r}, {reason}")
    content = {"source": "image_folder", "root": os.path.normpath(folder) if folder else "", "category": name}
    entry: ImageFolderDataset = parse(ImageFolderDataset, content, f"datasets.{name}")
    return entry


def examine(root: Path, entry: ImageFolderDataset, noise: Noise, seed: int, tell: Callable[[str], None]) -> bool:
    """Read all images of a folder, and return whether each has a label.

    Args:
        root: root of the repository.
        entry: the folder.
        noise: how its training images will be contaminated.
        seed: seed of the scenario.
        tell: called with what was found, one line each.

    Raises:
        DataError: there is no such folder or no usable image, or the noise takes labels that are not there.
    """
    scan, _ = read_source(entry, root / entry.root)
    tell(f"{entry.root}: {len(scan.manifest)} images, {len(scan.rejected)} left out")
    for path, reason, detail in scan.rejected.head(SHOWN).itertuples(index=False, name=None):
        tell(f"left out: {path}: {reason} ({detail})")
    for note in [*scan.notes, *scan.pixel_notes, *(f"in doubt: {doubt}" for doubt in scan.doubts)]:
        tell(note)
    labelled = has_labels(scan.manifest)
    if isinstance(noise, InjectedNoise):
        _refuse_impossible(entry, scan.manifest, noise, seed, labelled)
    return labelled


def _refuse_impossible(
    entry: ImageFolderDataset, manifest: "pd.DataFrame", noise: InjectedNoise, seed: int, labelled: bool
) -> None:
    """Raise DataError, in the words of the form, if no defects can be injected into these images."""
    if not labelled:
        unlabelled = int(manifest["anomaly_class"].isna().sum())
        raise DataError(
            f"alpha is {noise.ratio:g}, but {unlabelled} of {len(manifest)} images in {entry.root} have no label, so "
            "none is known to be a defect: leave alpha out (or null), or sort the images into folders good/ and bad/"
        )
    if (reason := _misfit(manifest, noise, seed)) is None:
        return
    smallest = noise.model_copy(update={"max_ratio": noise.ratio})
    fits = noise.max_ratio > noise.ratio and _misfit(manifest, smallest, seed) is None
    remedy = "give max_ratio as well, from alpha up to that" if fits else "take another alpha, and a max_ratio above it"
    raise DataError(
        f"alpha {noise.ratio:g} does not fit {entry.root}: {reason}; {remedy}, or leave both out (or null) for the "
        "images as they are"
    )


def _misfit(manifest: "pd.DataFrame", noise: InjectedNoise, seed: int) -> str | None:
    """Return why the noise cannot be injected into these images; None if it can."""
    try:
        train = training_images(contaminate(manifest, noise, seed))
    except DataError as error:
        return str(error)
    if noise.ratio and not is_anomalous(train).any():
        return f"{noise.ratio:g} of {train['sample_id'].nunique()} training samples is less than one defect"
    return None
