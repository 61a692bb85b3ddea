"""Compare exported graphs with the model file: every view, on real images of many sizes.

    python -m benchmarks.exported --data FOLDER [--out benchmarks/results/exported.csv]

patchcore learns 60 normal magnetic tiles per view; the threshold is the 5 % of 60 others. Scored are 50 images each of
magnetic tiles, screws, castings and solar cells. The largest differences of scores and of maps (the largest of all
images, and that of 99 % of them) are in millionths of the threshold. Milliseconds are those of the processor for one
image, from pixels to score and map.
"""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from benchmarks.measured.data import solar_cells
from benchmarks.regions import DATA
from llbnad.config import EncoderConfig, RealIadDataset, RegionConfig, Runtime
from llbnad.data.images import load_whole
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.data.sources import read_source
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.features.store import FeatureStore
from llbnad.inference.export import export
from llbnad.inference.exported import Exported, Format
from llbnad.inference.predict import Predictor
from llbnad.inference.prediction import Prediction
from llbnad.inference.scorer import Scorer
from llbnad.model.model import Model, train
from llbnad.model.threshold import threshold_at
from llbnad.utils.files import write_csv
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.progress import track
from llbnad.utils.runtime import prepare

LEARNT, EACH, RATE = 60, 50, 0.05
LEFT = RegionOfInterest(RegionConfig(polygon=((0, 0), (0.6, 0), (0.6, 1), (0, 1))))
VIEWS: dict[str, tuple[EncoderConfig, RegionOfInterest | None]] = {
    "squeeze": (EncoderConfig(), None),
    "letterbox": (EncoderConfig(view="letterbox"), None),
    "tiles 2x2": (EncoderConfig(view="tiles"), None),
    "squeeze, left 60 %": (EncoderConfig(), LEFT),
}
SETS = {"magnetic_tile": "magnetic_tile", "mvtec_screw": "screw", "casting": "casting_impeller"}


def trained(manifest: pd.DataFrame, root: Path, encoder: EncoderConfig, region: RegionOfInterest | None) -> Model:
    """Return a detector of normal magnetic tiles with its threshold."""
    normal = manifest["image_id"][manifest["anomaly_class"] == "OK"]
    ids = stable_shuffle(normal.tolist(), 0, "exported")[: 2 * LEARNT]
    with tempfile.TemporaryDirectory() as cache:
        store = FeatureStore(Path(cache), encoder, manifest, root, region=region)
        model = train(encoder, PatchcoreConfig(memory_size=2048), store, sorted(ids[:LEARNT]), 0)
        scores = replace(model, region=region).score(store, sorted(ids[LEARNT:])).values
    return replace(model, region=region, threshold=threshold_at(scores, RATE))


def compared(name: str, model: Model, images: list[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Yield one row per runtime."""
    assert model.threshold is not None
    reference, spent = _scored(Predictor(model), model, images, f"{name}: torch")
    with tempfile.TemporaryDirectory() as folder:
        files = export(model, list(Format), Path(folder)).files
        runs = {"torch": (reference, spent)}
        for kind, file in files.items():
            runs[kind.value] = _scored(Exported.load(file, threads=1), model, images, f"{name}: {kind.value}")
    for runtime, (found, seconds) in runs.items():
        pairs = list(zip(reference, found, strict=True))
        scores = np.array([(one.score, other.score) for one, other in pairs], float)
        maps = [np.abs(one.patch_map - other.patch_map).max() for one, other in pairs]  # type: ignore[operator]
        yield {
            "view": name, "runtime": runtime, "images": len(images), "sizes": len({one.shape for one in images}),
            "score_difference_ppm": 1e6 * float(np.abs(scores[:, 0] - scores[:, 1]).max() / model.threshold.value),
            "map_difference_ppm": 1e6 * float(max(maps)) / model.threshold.value,
            "map_difference_99_ppm": 1e6 * float(np.quantile(maps, 0.99)) / model.threshold.value,
            "labels_changed": sum(one.label != other.label for one, other in pairs),
            "processor_ms": 1000 * seconds / len(images),
        }  # fmt: skip


def _scored(scorer: Scorer[Any], model: Model, images: list[np.ndarray], name: str) -> tuple[list[Prediction], float]:
    list(scorer.predict(images[:2], model.threshold))  # the first calls allocate
    found: list[Prediction] = []
    started = time.process_time()
    for image in track(images, name):
        found += scorer.predict([image], model.threshold)
    return found, time.process_time() - started


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets, in Real-IAD's layout.")] = DATA,
    out: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None,
    each: Annotated[int, typer.Option(help="Images of each set.")] = EACH,
) -> None:
    """Print one row per view and runtime."""
    prepare(Runtime(device="cpu", threads=1))
    images: list[np.ndarray] = []
    sources = {}
    for folder, category in SETS.items():
        root = data / folder
        scan, where = read_source(RealIadDataset(root=str(root), category=category), root)
        sources[folder] = (scan.manifest, where)
    sources["solar cells"] = solar_cells()
    for manifest, where in sources.values():
        chosen = set(stable_shuffle(manifest["image_id"].tolist(), 0, "compared")[:each])
        paths = manifest["path"][manifest["image_id"].isin(chosen)]
        images += [np.asarray(load_whole(where / path)) for path in paths]
    rows = [
        row
        for name, (encoder, region) in VIEWS.items()
        for row in compared(name, trained(*sources["magnetic_tile"], encoder, region), images)
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.2g}".format))
    if out is not None:
        write_csv(table, out)


if __name__ == "__main__":
    typer.run(main)
