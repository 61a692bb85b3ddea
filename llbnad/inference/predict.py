"""Scores and decisions of a trained model for new images: one by one, or as a table with pictures.

An unreadable image does not stop the others. Its row holds the reason instead of a score.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from llbnad.config import Pages, Window
from llbnad.data.canvas import Frame
from llbnad.data.decode import IMAGE_SUFFIXES, page_of, pages_of
from llbnad.data.images import load_rgb
from llbnad.detectors.base import judge
from llbnad.encoders import create_encoder
from llbnad.encoders.canvases import canvas_of
from llbnad.errors import ConfigError, DataError
from llbnad.evaluation.figures import (
    ANOMALOUS_COLOUR,
    NORMAL_COLOUR,
    UNSURE_COLOUR,
    Tile,
    contact_sheet,
)
from llbnad.evaluation.heat_scale import HeatScale, heat_scale, lay_heat
from llbnad.features.batch import fresh_batch
from llbnad.inference.exported import Exported
from llbnad.inference.prediction import Prediction, Source, printable, with_regions
from llbnad.inference.region_files import WHOLE, region_columns, write_coco, write_regions
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import DEFECT_LABEL, NORMAL_LABEL, UNSURE_LABEL, Threshold
from llbnad.regions.find import region_mask
from llbnad.regions.outline import lay_outline
from llbnad.utils.files import relative_files, replacing, write_csv
from llbnad.utils.prefetch import prefetch
from llbnad.utils.progress import track

SHEET_IMAGES = 24  # images on the contact sheet, highest scores first
THUMBNAIL = 224  # side in pixels
HEAT_MAPS, SHEET, REGIONS = "heatmaps", "contact_sheet.png", "regions.jsonl"  # folder and files in `out`
NUMBERED = "[0-9]" * 5  # begins the name of each heat map

Loaded = tuple[np.ndarray, Frame]  # an image on its canvas, and where it lies there


class Predictor:
    """A model and its encoder, ready to score.

    Args:
        model: the trained model.
        device: torch's name of the device.
        batch_size: images read and scored at once.
    """

    def __init__(self, model: Model, device: str = "cpu", batch_size: int = 16) -> None:
        self.model, self.device = model, device
        self.canvas, self.encoder = canvas_of(model.encoder), create_encoder(model.encoder, device)
        self.batch_size = self.canvas.batch_size(batch_size)

    def predict(
        self,
        sources: Sequence[Source],
        threshold: Threshold | None = None,
        pixels: PixelThreshold | None = None,
        min_area: int | None = None,
    ) -> Iterator[Prediction]:
        """Yield one prediction per source, in their order.

        Args:
            sources: the images.
            threshold: decides on labels (see `threshold_of`).
            pixels: decides on regions (`llbnad.inference.region_files.pixel_threshold_of`); None: no regions.
            min_area: fewest pixels of a region; None: the area that `pixels` was calibrated for.
        """
        batches = [sources[start : start + self.batch_size] for start in range(0, len(sources), self.batch_size)]
        for images in prefetch(self._load, batches):
            for one in self._batch(images, threshold):
                yield with_regions(one, pixels, min_area)

    def _load(self, source: Source) -> Loaded | DataError:
        try:
            pixels, size = self.canvas.load(source, self.model.window)
            frame = self.canvas.frame(size, self.model.region)
            frame.inside((1, 1))  # an error if nothing of the image is in the region
        except DataError as error:
            return error
        return pixels, frame

    def _batch(self, loaded: Sequence[Loaded | DataError], threshold: Threshold | None) -> list[Prediction]:
        found = [Prediction(None, None, error=str(one)) if isinstance(one, DataError) else None for one in loaded]
        read = [one for one in loaded if not isinstance(one, DataError)]
        if read:
            images, frames = zip(*read, strict=True)
            names = tuple(map(str, range(len(images))))
            counts_whole = self.model.encoder.view == "squeeze" and self.model.region is None
            batch = fresh_batch(names, np.stack(images), self.encoder, self.device, () if counts_whole else frames)
            judged, image_scores = judge(self.model.detector, batch)
            scores = image_scores.cpu().numpy()
            maps = [frame.off_canvas(one) for frame, one in zip(frames, judged.cpu().numpy(), strict=True)]
            labels = [""] * len(scores) if threshold is None else [str(label) for label in threshold.labels(scores)]
            sizes = [frame.image for frame in frames]
            scored = map(Prediction, scores.tolist(), maps, labels, [""] * len(images), sizes)
            found = [next(scored) if item is None else item for item in found]
        return [item for item in found if item is not None]


def find_images(inputs: Sequence[Path], pages: Pages = "error") -> list[Path]:
    """Return the image files in `inputs`. Folders are searched with their subfolders.

    Args:
        inputs: image files, single pages of them (`FILE#2`), or folders.
        pages: a file of several pages is left to the reader, which calls it an error, or stands for its pages.

    Raises:
        DataError: an input does not exist, or there is no image.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found += [path / inside for inside in relative_files(path, IMAGE_SUFFIXES)]
        elif page_of(path)[0].exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: give image files or folders")
    if not found:
        raise DataError(f"no image under {[str(path) for path in inputs]}; expected {sorted(IMAGE_SUFFIXES)}")
    return [page for path in found for page in pages_of(path, pages)]


def refuse_own_pictures(inputs: Sequence[Path], images: Sequence[Path], out: Path) -> None:
    """Refuse a folder `out` whose pictures this call or the next one would take for images.

    Args:
        inputs: files and folders that the images were looked for in.
        images: images found there.
        out: folder that pictures are written to.

    Raises:
        ConfigError: `out` lies in one of the folders, or an image is a picture that an earlier call wrote to `out`.
    """
    target = out.resolve()
    for folder in inputs:
        if folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--out {printable(out)} lies in {printable(folder)}: the next call would take its pictures for "
                "images; name a folder elsewhere"
            )
    for image in images:
        inside = page_of(image)[0].resolve()
        if inside == target / SHEET or (inside.parent == target / HEAT_MAPS and inside.match(f"{NUMBERED}_*.png")):
            raise ConfigError(
                f"{printable(image)} is a picture in --out {printable(out)}: leave it out, or name another --out"
            )


def threshold_of(model: Model | Exported, target_fpr: float | None) -> Threshold | None:
    """Return the model's threshold, or its threshold for another false-positive rate.

    Args:
        model: the trained model.
        target_fpr: false-positive rate in (0, 1); None keeps the model's own threshold, which may be None.

    Raises:
        ConfigError: the rate is not in (0, 1).
        DataError: a rate is given, but the model is not calibrated.
    """
    if target_fpr is None:
        return model.threshold
    if model.threshold is None:
        raise DataError(
            f"the model has no threshold, so its false-positive rate cannot be set to {target_fpr:g}: "
            "train it with calibration.folds of at least 2"
        )
    return model.threshold.at(target_fpr)


def predict(
    model: Model | Exported,
    paths: Sequence[Path],
    out: Path,
    device: str = "cpu",
    batch_size: int = 16,
    threshold: Threshold | None = None,
    heatmaps: bool = True,
    pixels: PixelThreshold | None = None,
    min_area: int | None = None,
    coco: Path | None = None,
) -> pd.DataFrame:
    """Score images, write tables and pictures into `out`, and return the table.

    The files are predictions.csv, regions.jsonl, heatmaps/*.png and contact_sheet.png.

    Args:
        model: the trained model, or an exported graph, which has device and batch size of its own.
        paths: image files.
        out: folder to write to.
        device: torch's name of the device.
        batch_size: images read and scored at once.
        threshold: decides on labels (see `threshold_of`); without it, threshold and label stay empty.
        heatmaps: write one heat map per image, as large as the image; the contact sheet is written anyway.
        pixels: decides on regions; without it, their columns stay empty, and there is no regions.jsonl.
        min_area: fewest pixels of a region; None: the area that `pixels` was calibrated for.
        coco: JSON file to write the regions to in COCO's form; None: no such file.

    Returns:
        one row per image: path (`printable`), score (empty if unreadable), threshold, label (normal, unsure or defect),
        heatmap (relative to `out`), error, and the columns of `llbnad.inference.region_files.region_columns`.
    """
    paths = list(dict.fromkeys(paths))
    predictor = model if isinstance(model, Exported) else Predictor(model, device, batch_size)
    predictions = predictor.predict(paths, threshold, pixels, min_area)
    results = dict(zip(paths, track(predictions, "predict", len(paths)), strict=True))
    maps = {path: result.patch_map for path, result in results.items() if result.patch_map is not None}
    # cut the stem, because a file name has at most 255 bytes
    stems = {path: printable(path.stem)[:60].replace("\\", "_") for path in maps}
    numbered = enumerate(stems.items()) if heatmaps else ()
    names = {path: f"{HEAT_MAPS}/{number:05d}_{stem}.png" for number, (path, stem) in numbered}
    table = _table(results, names, threshold)
    write_csv(table, out / "predictions.csv")  # before the pictures, so that scores survive a failure there
    if pixels is not None:
        write_regions(results, out / REGIONS)
    else:  # an earlier call may have left one
        (out / REGIONS).unlink(missing_ok=True)
    if coco is not None:
        write_coco(results, coco)
    for old in (out / HEAT_MAPS).glob(f"{NUMBERED}_*.png"):  # an earlier call may have left some
        old.unlink()
    scale = scale_of(list(maps.values()), threshold)

    def draw(path: Path) -> Path | None:
        """Draw the heat map of `path`. Return the path if its file has gone or changed since then, else None."""
        try:
            _write_overlay(path, model.window, results[path], scale, out / names[path])
        except (DataError, FileNotFoundError):
            return path
        return None

    drawn = track(prefetch(draw, [[path] for path in names]), "heat maps", len(names))
    gone = {path for (path,) in drawn if path is not None}
    if gone:
        table = _table(results, {path: name for path, name in names.items() if path not in gone}, threshold)
        write_csv(table, out / "predictions.csv")
    title = f"Highest scores of {len(table)} images" + ("" if threshold is None else f"; {threshold.caption()}")
    shown = table.assign(source=pd.Series(paths, dtype=object))
    _write_sheet(shown[~shown["source"].isin(gone)], model.window, results, scale, title, out / SHEET)
    return table


def _table(results: Mapping[Path, Prediction], names: Mapping[Path, str], threshold: Threshold | None) -> pd.DataFrame:
    cut = None if threshold is None else threshold.value
    rows = [
        {"path": printable(path), "score": one.score, "threshold": None if one.error else cut, "label": one.label,
         "heatmap": names.get(path, ""), "error": printable(one.error), **region_columns(one)}
        for path, one in results.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(WHOLE, "Int64"))


def scale_of(maps: Sequence[np.ndarray], threshold: Threshold | None) -> HeatScale:
    """Return the colour scale of a model's maps, anchored at its threshold; without one it follows from the maps."""
    return heat_scale(None if threshold is None else threshold.value, maps)


def _write_overlay(path: Path, window: Window | None, one: Prediction, scale: HeatScale, out: Path) -> None:
    picture = load_rgb(path, window)
    if one.patch_map is None or picture.size != one.size:
        raise DataError(f"{path} changed since it was scored: score it again")
    lay_heat(picture, one.patch_map, scale)
    if one.regions:
        lay_outline(picture, region_mask(one.regions, picture.size))
    with replacing(out) as temporary:
        picture.save(temporary, format="png")


def _write_sheet(
    table: pd.DataFrame,
    window: Window | None,
    results: Mapping[Path, Prediction],
    scale: HeatScale,
    title: str,
    out: Path,
) -> None:
    colours = {DEFECT_LABEL: ANOMALOUS_COLOUR, UNSURE_LABEL: UNSURE_COLOUR, NORMAL_LABEL: NORMAL_COLOUR}
    tiles = []
    scored = table.dropna(subset="score").sort_values(["score", "path"], ascending=[False, True])
    for row in scored.head(SHEET_IMAGES).to_dict("records"):
        path, heat = row["source"], results[row["source"]].patch_map
        if heat is None:
            continue
        try:
            image = np.asarray(load_rgb(path, window).resize((THUMBNAIL, THUMBNAIL)))
        except (DataError, FileNotFoundError):  # the file has gone since it was scored
            continue
        verdict = f"{row['label']} · " if row["label"] else ""
        colour = colours.get(row["label"], "black")
        caption = f"{verdict}{row['score']:.4g}"
        tiles.append(Tile(image, heat, caption, colour, _outlined(results[path]), row["path"]))
    contact_sheet(tiles, out, title, scale)


def _outlined(one: Prediction) -> np.ndarray | None:
    """Return the pixels of an image's regions at the size of a thumbnail, or None if it has none."""
    if not one.regions or one.size is None:
        return None
    mask = Image.fromarray(region_mask(one.regions, one.size))
    return np.asarray(mask.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.NEAREST))
