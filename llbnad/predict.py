"""Score images with a trained model file: a table and heat-map overlays.

One bad image never stops the others: it gets a row with the reason instead of a score.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.detectors import image_scores
from llbnad.encoders import create_encoder
from llbnad.encoders.base import load_square
from llbnad.errors import DataError
from llbnad.features import fresh_batch
from llbnad.figures import heat_range, overlay
from llbnad.files import replacing, write_csv
from llbnad.images import IMAGE_SUFFIXES, load_rgb
from llbnad.model import Model
from llbnad.progress import track


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """Image files among `inputs`; folders are searched with their subfolders.

    Raises:
        DataError: an input does not exist, or nothing was found.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: give image files or folders")
    if not found:
        raise DataError(f"no image under {[str(path) for path in inputs]}; expected {sorted(IMAGE_SUFFIXES)}")
    return found


def predict(model: Model, paths: Sequence[Path], out: Path, device: str = "cpu", batch_size: int = 16) -> pd.DataFrame:
    """Score `paths`, write `out`/predictions.csv and `out`/heatmaps/*.png, and return the table.

    Returns:
        one row an image: path, score (empty if unreadable), heatmap (relative to `out`), error.
    """
    encoder = create_encoder(model.encoder, device)
    rows: dict[Path, dict[str, object]] = {}
    maps: dict[Path, np.ndarray] = {}
    starts = range(0, len(paths), batch_size)
    for start in track(starts, "predict", unit="batch"):
        images = dict(_readable(paths[start : start + batch_size], model.encoder.input_size, rows))
        if not images:
            continue
        batch = fresh_batch(tuple(map(str, images)), np.stack(list(images.values())), encoder, device)
        patch_maps = model.detector.patch_maps(batch)
        for path, score, patch_map in zip(images, image_scores(patch_maps), patch_maps.cpu().numpy(), strict=True):
            rows[path] = {"path": str(path), "score": float(score), "heatmap": "", "error": ""}
            maps[path] = patch_map
    if maps:
        scale = heat_range(list(maps.values()))
        for number, (path, patch_map) in enumerate(maps.items()):
            name = f"heatmaps/{number:05d}_{path.stem}.png"
            _write_overlay(path, patch_map, scale, out / name)
            rows[path]["heatmap"] = name
    table = pd.DataFrame([rows[path] for path in dict.fromkeys(paths)])
    write_csv(table, out / "predictions.csv")
    return table


def _readable(
    paths: Sequence[Path], size: int, rows: dict[Path, dict[str, object]]
) -> Iterator[tuple[Path, np.ndarray]]:
    for path in paths:
        try:
            yield path, load_square(path, size)
        except DataError as error:
            rows[path] = {"path": str(path), "score": None, "heatmap": "", "error": str(error)}


def _write_overlay(path: Path, patch_map: np.ndarray, scale: tuple[float, float], out: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(overlay(np.asarray(load_rgb(path)), patch_map, scale))
    with replacing(out) as temporary:
        picture.save(temporary, format="png")
