"""Compare the views of an image on a labelled data set in Real-IAD's layout, and measure the memory of large images.

    python -m benchmarks.views quality --root ../shared/data/magnetic_tile --category magnetic_tile
    python -m benchmarks.views memory --tiles 2x3

`quality` trains each detector on normal images under each view and tests it on other images. All views see the same
images. The wide squeeze has about as many pixels as 2 × 2 tiles, so that the effect of tiles and that of pixels can be
told apart. `images_per_s` counts images from file to score and map per processor second, which depends little on what
else runs; run it with OMP_NUM_THREADS=1 to learn the rate of one core.

`memory` makes images of 16 megapixels, trains patchcore on them and scores one, and reports the largest memory of the
process. Run it once per view: the largest memory of a process never falls.
"""

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from llbnad.config import METHOD, EncoderConfig, RealIadDataset, Runtime
from llbnad.data.manifest import is_anomalous
from llbnad.data.sources import read_source
from llbnad.detectors import DETECTORS
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.evaluation.evaluate import evaluate
from llbnad.features.store import FeatureStore
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model, train
from llbnad.options import view_options
from llbnad.utils.files import write_csv
from llbnad.utils.hashing import stable_shuffle
from llbnad.utils.runtime import prepare

SIDE, WIDE = 224, 416  # pixels; 2 × 2 tiles of 224 with the usual overlap make a canvas of 416
VIEWS = {
    "squeeze 224": EncoderConfig(input_size=SIDE),
    "letterbox 224": EncoderConfig(input_size=SIDE, view="letterbox"),
    "squeeze 416": EncoderConfig(input_size=WIDE),
    "letterbox 416": EncoderConfig(input_size=WIDE, view="letterbox"),
    "tiles 2x2 of 224": EncoderConfig(input_size=SIDE, view="tiles", tiles=(2, 2)),
    "tiles 4x4 of 224": EncoderConfig(input_size=SIDE, view="tiles", tiles=(4, 4)),
}
TIMED = 20  # images
SETTINGS = {"patchcore": {"memory_size": 4096}, "padim": {"dimensions": 60}}
COLUMNS = ["image_auroc", "pixel_auroc", "aupro"]
LARGE = (4896, 3264)  # width and height of 16 megapixels

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command()
def quality(
    root: Annotated[Path, typer.Option(help="Folder of the data set.")],
    category: Annotated[str, typer.Option(help="Its category.")],
    out: Annotated[Path | None, typer.Option(help="CSV file for the table.")] = None,
    train_images: Annotated[int, typer.Option(help="Normal images to learn.")] = 60,
    test_images: Annotated[int, typer.Option(help="Images of each kind to test.")] = 40,
    view: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(VIEWS)}; repeatable.")] = None,
    detector: Annotated[list[str] | None, typer.Option(help="patchcore or padim; repeatable.")] = None,
) -> None:
    """Print I-AUROC, pixel AUROC, AUPRO and images per processor second of each view and detector."""
    target = str(prepare(Runtime()))
    scan, image_root = read_source(RealIadDataset(root=str(root), category=category), root)
    chosen = _chosen(scan.manifest, train_images, test_images)
    tested, rows = chosen[chosen["split"] == "test"], []
    for name in view or VIEWS:
        with tempfile.TemporaryDirectory() as cache:
            store = FeatureStore(Path(cache), VIEWS[name], chosen, image_root, target)
            for one in detector or SETTINGS:
                config = DETECTORS.get(one).config_class(**SETTINGS[one])
                ids = sorted(chosen["image_id"][chosen["split"] == "train"])
                model = train(VIEWS[name], config, store, ids, 0)
                rate = _images_per_second(model, target, [image_root / path for path in tested["path"][:TIMED]])
                found = evaluate({METHOD: model}, {METHOD: ids}, chosen, store, image_root, 0)
                results = found.comparison.iloc[0][COLUMNS].to_dict()
                rows.append({"data set": category, "detector": one, "view": name, **results, "images_per_s": rate})
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1, float_format="%.3f"))
    if out is not None:
        write_csv(pd.DataFrame(rows), out)


@app.command()
def memory(
    tiles: Annotated[str | None, typer.Option(help="Rows and columns of tiles, e.g. 2x3; without: squeeze.")] = None,
    images: Annotated[int, typer.Option(help="Images of 16 megapixels.")] = 12,
) -> None:
    """Print the largest memory of a process that learns images of 16 megapixels and scores one."""
    target = str(prepare(Runtime()))
    options = view_options(None, tiles, None, None, None)
    given = {key.removeprefix("encoder."): value for key, value in options.items() if value is not None}
    encoder = EncoderConfig(**given)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        manifest = pd.DataFrame(_large(root, images))
        before = _megabytes()
        store = FeatureStore(root / "cache", encoder, manifest, root, target)
        model = train(encoder, PatchcoreConfig(memory_size=4096), store, store.image_ids, 0)
        start = time.process_time()
        list(Predictor(model, target).predict([root / path for path in manifest["path"][:1]]))
        seconds = time.process_time() - start
    print(
        f"{encoder.view} {tiles or ''}: {before:.0f} MB before, at most {_megabytes():.0f} MB, {seconds:.1f} s an image"
    )


def _images_per_second(model: Model, device: str, paths: Sequence[Path]) -> float:
    predictor = Predictor(model, device)
    list(predictor.predict(paths[:2]))  # the first call allocates
    start = time.process_time()
    list(predictor.predict(paths))
    return len(paths) / (time.process_time() - start)


def _chosen(manifest: pd.DataFrame, train_images: int, test_images: int) -> pd.DataFrame:
    """Return normal images to learn, and other normal images and defects with a mask to test."""
    anomalous = is_anomalous(manifest).astype(bool)
    normal = stable_shuffle(manifest["image_id"][~anomalous], 0, "views")
    defects = stable_shuffle(manifest["image_id"][anomalous & manifest["mask_path"].notna()], 0, "views")
    split = dict.fromkeys(normal[:train_images], "train")
    split |= dict.fromkeys([*normal[train_images : train_images + test_images], *defects[:test_images]], "test")
    found = manifest[manifest["image_id"].isin(split)].reset_index(drop=True)
    return found.assign(split=found["image_id"].map(split))


def _large(root: Path, count: int) -> Iterator[dict[str, object]]:
    from PIL import Image

    from llbnad.data.decode import image_digest

    width, height = LARGE
    ramp = np.linspace(60, 180, width).astype(np.uint8)[None, :, None]
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 40, (height // 16, width // 16, 3), np.uint8)
        pixels = ramp + noise.repeat(16, axis=0).repeat(16, axis=1)
        Image.fromarray(pixels).save(root / f"{number}.png", compress_level=1)
        yield {"image_id": image_digest(root / f"{number}.png"), "path": f"{number}.png", "width": width,
               "height": height}  # fmt: skip


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    app()
