"""Scores of many images as tables and pictures in a folder.

An unreadable image does not stop the others. Its row holds the reason instead of a score.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from llbnad.errors import DataError
from llbnad.inference.exported import Exported
from llbnad.inference.image_files import HEAT_MAPS, NUMBERED, SHEET
from llbnad.inference.picture import scale_of, write_overlay
from llbnad.inference.predict import Predictor
from llbnad.inference.prediction import Prediction, printable
from llbnad.inference.region_files import WHOLE, region_columns, write_coco, write_regions
from llbnad.inference.sheet import write_sheet
from llbnad.model.model import Model
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import Threshold
from llbnad.utils.files import write_csv
from llbnad.utils.prefetch import prefetch
from llbnad.utils.progress import track

REGIONS = "regions.jsonl"


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
        one row per image: path (`printable`), score (empty if unreadable), threshold, unsure_from and unsure_to (scores
        in between are called unsure), label (normal, unsure or defect), heatmap (relative to `out`), error, and
        the columns of `llbnad.inference.region_files.region_columns`.
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
            write_overlay(path, model.window, results[path], scale, out / names[path])
        except (DataError, FileNotFoundError):
            return path
        return None

    drawn = track(prefetch(draw, [[path] for path in names]), "heat maps", len(names))
    gone = {path for (path,) in drawn if path is not None}
    if gone:
        table = _table(results, {path: name for path, name in names.items() if path not in gone}, threshold)
        write_csv(table, out / "predictions.csv")
    title = f"Highest scores of {len(table)} images" + ("" if threshold is None else f"; {threshold.caption()}")
    title += "" if pixels is None else "; regions outlined in green"
    shown = table.assign(source=pd.Series(paths, dtype=object))
    write_sheet(shown[~shown["source"].isin(gone)], model.window, results, scale, title, out / SHEET)
    return table


def _table(results: Mapping[Path, Prediction], names: Mapping[Path, str], threshold: Threshold | None) -> pd.DataFrame:
    limits: dict[str, float | None] = dict.fromkeys(("threshold", "unsure_from", "unsure_to"))
    known = dict(limits)
    if threshold is not None:
        known["threshold"] = threshold.value
        if threshold.unsure:
            known |= {"unsure_from": threshold.unsure_low, "unsure_to": threshold.unsure_high}
    rows = [
        {"path": printable(path), "score": one.score, **(limits if one.error else known), "label": one.label,
         "heatmap": names.get(path, ""), "error": printable(one.error), **region_columns(one)}
        for path, one in results.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).astype(dict.fromkeys(WHOLE, "Int64"))
