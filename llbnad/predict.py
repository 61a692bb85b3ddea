"""Score images with a trained model: numbers and maps one by one, or a table with pictures for a folder.

One bad image never stops the others: it gets a row with the reason instead of a score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from llbnad.detectors import image_scores
from llbnad.encoders import create_encoder
from llbnad.encoders.base import load_square
from llbnad.errors import DataError
from llbnad.features import Batch
from llbnad.figures import Tile, contact_sheet, heat_range, overlay
from llbnad.files import replacing, write_csv
from llbnad.images import IMAGE_SUFFIXES, load_rgb
from llbnad.model import Model
from llbnad.progress import track

SHEET_IMAGES = 24  # highest scores on the contact sheet
THUMBNAIL = 224  # pixels

Source = Path | bytes | np.ndarray  # an image file, the bytes of one, or pixels (H, W, 3) uint8


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image; score and map are None if it could not be read."""

    score: float | None
    patch_map: np.ndarray | None  # (h, w) float32
    error: str = ""


class Predictor:
    """A model and its encoder, ready to score.

    Args:
        model: the trained model.
        device: torch's name of the device.
        batch_size: images read and scored at once.
    """

    def __init__(self, model: Model, device: str = "cpu", batch_size: int = 16) -> None:
        self.model, self.device, self.batch_size = model, device, batch_size
        self.encoder = create_encoder(model.encoder, device)

    def predict(self, sources: Sequence[Source]) -> Iterator[Prediction]:
        """One prediction a source, in their order."""
        for start in range(0, len(sources), self.batch_size):
            yield from self._batch(sources[start : start + self.batch_size])

    def _batch(self, sources: Sequence[Source]) -> list[Prediction]:
        import torch

        found: list[Prediction | None] = []
        images = []
        for source in sources:
            try:
                images.append(load_square(source, self.model.encoder.input_size))
                found.append(None)
            except DataError as error:
                found.append(Prediction(None, None, str(error)))
        if images:
            layers = self.encoder.encode(np.stack(images))
            names = tuple(map(str, range(len(images))))
            batch = Batch(names, tuple(torch.from_numpy(layer).to(self.device).float() for layer in layers))
            maps = self.model.detector.patch_maps(batch)
            scored = iter(zip(image_scores(maps).tolist(), maps.cpu().numpy(), strict=True))
            found = [Prediction(*next(scored)) if item is None else item for item in found]
        return [item for item in found if item is not None]


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
    """Score `paths`; write `out`/predictions.csv, heatmaps/*.png and contact_sheet.png, and return the table.

    Returns:
        one row an image: path, score (empty if unreadable), heatmap (relative to `out`), error.
    """
    paths = list(dict.fromkeys(paths))
    predictions = Predictor(model, device, batch_size).predict(paths)
    results = dict(zip(paths, track(predictions, "predict", len(paths)), strict=True))
    maps = {path: result.patch_map for path, result in results.items() if result.patch_map is not None}
    names = {path: f"heatmaps/{number:05d}_{path.stem}.png" for number, path in enumerate(maps)}
    scale = heat_range(list(maps.values()))
    for path, patch_map in maps.items():
        _write_overlay(path, patch_map, scale, out / names[path])
    rows = [
        {"path": str(path), "score": result.score, "heatmap": names.get(path, ""), "error": result.error}
        for path, result in results.items()
    ]
    table = pd.DataFrame(rows)
    write_csv(table, out / "predictions.csv")
    _write_sheet(table, maps, out / "contact_sheet.png")
    return table


def _write_overlay(path: Path, patch_map: np.ndarray, scale: tuple[float, float], out: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(overlay(np.asarray(load_rgb(path)), patch_map, scale))
    with replacing(out) as temporary:
        picture.save(temporary, format="png")


def _write_sheet(table: pd.DataFrame, maps: dict[Path, np.ndarray], out: Path) -> None:
    tiles = []
    scored = table.dropna(subset="score").sort_values(["score", "path"], ascending=[False, True])
    for row in scored.head(SHEET_IMAGES).to_dict("records"):
        path = Path(row["path"])
        image = np.asarray(load_rgb(path).resize((THUMBNAIL, THUMBNAIL)))
        tiles.append(Tile(image, maps[path], f"{row['score']:.3f} · {path.name}", "black"))
    contact_sheet(tiles, out, f"Highest scores of {len(table)} images")
