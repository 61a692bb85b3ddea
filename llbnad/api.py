"""The public functions `purify`, `fit` and `load`. They take the steps of `llbnad run` and give the same results."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llbnad.config import (
    METHOD,
    USUAL_PIXELS,
    DetectorConfig,
    EncoderConfig,
    Files,
    Intensity,
    NoNoise,
    Pages,
    Runtime,
    SelectionPolicy,
    Subsets,
    parse,
)
from llbnad.data.canvas import off_canvas
from llbnad.data.contaminate import contaminate
from llbnad.data.decode import pages_of
from llbnad.data.manifest import paths_of, training_images
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.data.sources.given import Images, read_given
from llbnad.data.sources.records import Scan
from llbnad.features.store import FeatureStore
from llbnad.inference.image_files import find_images
from llbnad.inference.predict import Predictor, threshold_of
from llbnad.inference.prediction import Source
from llbnad.inference.region_files import pixel_threshold_of
from llbnad.model.model import Model
from llbnad.model.threshold import Threshold
from llbnad.purification.notes import selection_notes, suspects, threshold_notes
from llbnad.purification.rounds import Selection
from llbnad.purification.verdicts import with_verdicts
from llbnad.scenario import ScenarioSettings, make_settings
from llbnad.two_stage import select_images, train_final, verdicts_of
from llbnad.utils.runtime import prepare

Chosen = str | Mapping[str, Any]  # a name, or a mapping with the name and settings


@dataclass(frozen=True, eq=False)
class Purification:
    """The decision of stage 1 about the training images."""

    kept: list[Path]  # sorted
    rejected: list[Path]  # most suspicious first
    scores: pd.Series  # consensus scores by path, most suspicious first; the unit is the detector's
    heat_maps: Mapping[Path, np.ndarray]  # (h, w) patch maps by path, in the same unit
    left_out: pd.DataFrame  # files that took no part: path, reason, detail
    suspects: list[Path]  # images, kept or not, whose scores stand apart from the body; most suspicious first
    notes: list[str]  # one plain line for each thing to know before one trusts the selection
    selection: Selection  # the same decision by image id, with rounds, sub-models and trusted patches


class TrainedModel:
    """A detector with its thresholds, ready to score images.

    Args:
        model: detector, encoder and threshold.
        device: torch's name of the device.
        purification: decision of stage 1; None for a model that was loaded from a file.
    """

    def __init__(self, model: Model, device: str, purification: Purification | None = None) -> None:
        self.model, self.device, self.purification = model, device, purification

    def __repr__(self) -> str:
        """Return a text with the names of detector and encoder."""
        return f"{type(self).__name__}({self.model.config.name} on {self.model.encoder.name})"

    @property
    def notes(self) -> list[str]:
        """One plain line for each thing to know before one trusts the detector."""
        about_images = [] if self.purification is None else self.purification.notes
        return [*about_images, *threshold_notes(self.threshold)]

    @property
    def threshold(self) -> Threshold | None:
        """The threshold above which an image is called a defect; None if the model is not calibrated."""
        return self.model.threshold

    def predict(
        self,
        images: str | Path | Sequence[Source | str] | np.ndarray,
        target_fpr: float | None = None,
        pages: Pages = "error",
    ) -> pd.DataFrame:
        """Score images and call them normal, unsure or defect.

        Args:
            images: a folder, an image file, or several images: files, bytes of files, pixels (H, W, 3) uint8.
            target_fpr: share of normal images that may be called defects, in (0, 1); None: the model's own rate.
            pages: a file of several pages is an error in its row, or has a row for its first page, or for each page.

        Returns:
            one row per image, in their order: path (None for bytes and pixels), score, label (`normal`,
            `unsure` or `defect`; empty without a threshold), heat_map ((h, w) float32), regions
            (list of `llbnad.regions.find.Region`; None without a pixel threshold), error (empty for a readable
            image; otherwise score and heat map are missing).

        Raises:
            ConfigError: `target_fpr` is not in (0, 1), or `pages` is none of the three words.
            DataError: a folder has no image, or `target_fpr` is given and the model has no threshold.
        """
        sources = _sources(images, parse(Files, {"pages": pages}, "predict").pages)
        threshold, pixels = threshold_of(self.model, target_fpr), pixel_threshold_of(self.model, target_fpr)
        found = list(self._predictor.predict(sources, threshold, pixels))
        return pd.DataFrame(
            {
                "path": pd.Series([one if isinstance(one, Path) else None for one in sources], dtype=object),
                "score": pd.Series([one.score for one in found], dtype="float64"),
                "label": pd.Series([one.label for one in found], dtype=object),
                "heat_map": pd.Series([one.patch_map for one in found], dtype=object),
                "regions": pd.Series([one.regions for one in found], dtype=object),
                "error": pd.Series([one.error for one in found], dtype=object),
            }
        )

    def save(self, file: str | Path) -> None:
        """Write the model file that `load` and `llbnad predict` read."""
        self.model.save(Path(file))

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.model, self.device, Runtime().batch_size)


def purify(
    images: Images,
    detector: Chosen | DetectorConfig = "patchcore",
    *,
    policy: Chosen | SelectionPolicy | None = None,
    subsets: Subsets = "auto",
    seed: int = 0,
    encoder: Chosen | EncoderConfig | None = None,
    root: str | Path = "",
    cache: str | Path | None = None,
    device: str = "auto",
    intensity: Intensity = "auto",
    pages: Pages = "error",
    max_pixels: int = USUAL_PIXELS,
    **settings: Any,
) -> Purification:
    """Find out which training images look normal (stage 1). No label is used.

    A detector, policy or encoder is a name, `module:Class`, a mapping with the name and settings, or a settings object.

    Args:
        images: a folder, searched with its subfolders except `test/`; a CSV or JSON-lines file that names images
            (`llbnad.data.sources.manifest_file`); image files; or a manifest (`llbnad.data.manifest`).
        detector: the final detector. Sub-models are of this kind only with sub_model_detector=None.
        policy: decides how many images are kept; None: adaptive.
        subsets: T, number of sub-models; auto: 10 for few images, else 5.
        seed: seed of subsets and detectors.
        encoder: network whose features the detector reads; None: efficientnet_lite2 at 224 pixels.
        root: folder that a manifest's paths are relative to.
        cache: folder that keeps encoded images for the next call; None: a temporary folder, removed at the end.
        device: auto, cpu, cuda … On a GPU, torch is set to deterministic algorithms for the whole process.
        intensity: values shown as black and white, in images above 8 bits: auto, full or (low, high)
            (`llbnad.data.intensity`).
        pages: a file of several pages is an error (it is left out), stands for its first page, or for each page.
        max_pixels: most pixels of an image, width × height; a larger one is left out. It holds in this process from
            then on.
        settings: other keys of `llbnad.scenario.ScenarioSettings`, e.g. patch_rejection=0.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: no image is usable, or there are too few images.
        OfflineError: the encoder's weights are not on this machine and cannot be downloaded.
    """
    wanted = _wanted("llbnad.purify", detector, policy, seed, encoder, subsets, settings)
    verdicts = verdicts_of(wanted)
    files = parse(Files, {"intensity": intensity, "pages": pages, "max_pixels": max_pixels}, "llbnad.purify")
    with _opened(images, wanted, Path(root), cache, device, files) as work:
        selection = select_images(training_images(work.noisy), work.store, wanted, verdicts)
        return _purification(work, selection)


def fit(
    images: Images,
    detector: Chosen | DetectorConfig = "patchcore",
    *,
    policy: Chosen | SelectionPolicy | None = None,
    subsets: Subsets = "auto",
    seed: int = 0,
    encoder: Chosen | EncoderConfig | None = None,
    root: str | Path = "",
    cache: str | Path | None = None,
    device: str = "auto",
    intensity: Intensity = "auto",
    pages: Pages = "error",
    max_pixels: int = USUAL_PIXELS,
    **settings: Any,
) -> TrainedModel:
    """Purify the training images, and train the detector with its threshold on the kept images (both stages).

    Arguments and errors are the same as for `purify`. Comparators are not trained and no synthetic defects
    are drawn; `llbnad run` does both.
    """
    wanted = _wanted("llbnad.fit", detector, policy, seed, encoder, subsets, {**settings, "comparators": ()})
    verdicts = verdicts_of(wanted)
    files = parse(Files, {"intensity": intensity, "pages": pages, "max_pixels": max_pixels}, "llbnad.fit")
    with _opened(images, wanted, Path(root), cache, device, files) as work:
        selection = select_images(training_images(work.noisy), work.store, wanted, verdicts)
        rows = training_images(with_verdicts(work.noisy, verdicts))
        _, models = train_final(rows, selection, work.store, wanted)
        return TrainedModel(models[METHOD], work.store.device, _purification(work, selection))


def load(file: str | Path, device: str = "auto", plugins: bool = False) -> TrainedModel:
    """Read a model file that `TrainedModel.save` or `llbnad run` wrote.

    Args:
        file: the model file.
        device: auto, cpu, cuda …
        plugins: import a `module:Class` that the file names (`llbnad.model.model.Model.load` says when that is needed).

    Raises:
        DataError: the file is missing, is no model file, or needs a class or weights that are not installed.
    """
    target = str(prepare(Runtime(device=device)))
    return TrainedModel(Model.load(Path(file), target, plugins), target)


@dataclass(frozen=True)
class _Work:
    scan: Scan
    noisy: pd.DataFrame
    image_root: Path
    store: FeatureStore


def _wanted(
    where: str,
    detector: Chosen | DetectorConfig,
    policy: Chosen | SelectionPolicy | None,
    seed: int,
    encoder: Chosen | EncoderConfig | None,
    subsets: Subsets,
    settings: Mapping[str, Any],
) -> ScenarioSettings:
    named = {"detector": detector, "subsets": subsets, "seed": seed, "selection": policy, "encoder": encoder}
    given = {key: value for key, value in named.items() if value is not None}
    return make_settings({**given, **settings}, where)


@contextmanager
def _opened(
    images: Images, settings: ScenarioSettings, root: Path, cache: str | Path | None, device: str, files: Files
) -> Iterator[_Work]:
    """Read `images` and open their features. Without `cache`, the cache is removed when the block ends."""
    runtime = Runtime(device=device)
    target = str(prepare(runtime))
    found, image_root = read_given(images, root, files)
    noisy = contaminate(found.manifest, NoNoise(), settings.seed)
    with tempfile.TemporaryDirectory(prefix="llbnad-") as temporary:
        folder = Path(temporary if cache is None else cache)
        region = RegionOfInterest.read(settings.region)
        store = FeatureStore(folder, settings.encoder, noisy, image_root, target, runtime.batch_size, region=region)
        yield _Work(found, noisy, image_root, store)


def _purification(work: _Work, selection: Selection) -> Purification:
    paths = {
        image_id: work.image_root / path
        for image_id, path in zip(work.noisy["image_id"], work.noisy["path"], strict=True)
    }
    table, names = selection.consensus.table, paths_of(work.noisy)
    heat = off_canvas(selection.consensus.maps, work.store.frames)
    scores = table["score"].sort_values(ascending=False, kind="stable")
    rejected = set(selection.purified.rejected)
    return Purification(
        kept=sorted(paths[image_id] for image_id in selection.purified.kept),
        rejected=[paths[image_id] for image_id in scores.index if image_id in rejected],
        scores=scores.set_axis(pd.Index([paths[image_id] for image_id in scores.index], name="path")),
        heat_maps={paths[image_id]: heat[image_id] for image_id in scores.index},
        left_out=work.scan.rejected,
        suspects=[paths[image_id] for image_id in suspects(table, selection.purified, names)["image_id"]],
        notes=[*work.scan.pixel_notes, *selection_notes(table, selection.purified, names)],
        selection=selection,
    )


def _sources(images: str | Path | Sequence[Source | str] | np.ndarray, pages: Pages) -> list[Source]:
    if isinstance(images, str | Path):
        return [*find_images([Path(images)], pages)]
    if isinstance(images, bytes) or (isinstance(images, np.ndarray) and images.ndim == 3):
        return [images]
    given = [Path(one) if isinstance(one, str) else one for one in images]
    return [page for one in given for page in (pages_of(one, pages) if isinstance(one, Path) else [one])]
