"""A repository with one scenario of many images, for `benchmarks.scale`.

The photos are small and synthetic, and so are network and detectors: they do not decide how anything grows.
"""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from benchmarks.measured.many_scenarios import copy_code
from benchmarks.scale import NAME, SUBSETS
from llbnad.data.manifest import read_manifest, write_manifest
from llbnad.model.scores import Scores
from llbnad.purification.heat import write_heat
from llbnad.utils.files import write_json

SIDE = 64  # pixels of a photo
DEFECTS = 50  # one photo of so many shows a defect
GRID = 28  # patches per side of made maps: those of the pipeline's usual encoder
OWN_SETTINGS: dict[str, Any] = {
    "dataset": NAME,
    "noise": {"protocol": "as_is"},
    "encoder": {"name": "efficientnet_lite2", "input_size": SIDE, "layers": [2, 3]},
    "detector": {"name": "patchcore", "memory": "random", "memory_size": 512, "oversampling": 2, "neighbours": 1,
                 "vectors": "unit"},
    "sub_model_detector": {"name": "padim", "dimensions": 16, "regularisation": 0.1},
    "subsets": SUBSETS,
    "comparators": ["none"],
}  # fmt: skip


def write_photos(folder: Path, count: int) -> None:
    """Write `count` different photos: a bright plate in uneven light, and a dark spot on one of `DEFECTS`."""
    folder.mkdir(parents=True)
    for number in range(count):
        draw = np.random.default_rng(number)
        light = Image.fromarray(draw.integers(110, 150, (4, 4), np.uint8))
        pixels = np.asarray(light.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        pixels = pixels + draw.integers(-6, 7, (SIDE, SIDE))
        pixels[16:48, 16:48] += 60
        if number % DEFECTS == 0:
            row, column = draw.integers(16, 40, 2)
            pixels[row : row + 8, column : column + 8] -= 120
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:06d}.png", compress_level=1)


def make_workspace(root: Path, count: int, **settings: Any) -> None:
    """Make a repository with our code, `count` photos outside of data/ and one scenario with `settings`."""
    copy_code(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["datasets"] = {NAME: {"source": "image_folder", "root": f"photos/{NAME}", "category": NAME}}
    params["sub_models"] = [*range(SUBSETS)]
    params["scenarios"] = {NAME: {**params["defaults"], **OWN_SETTINGS, **settings}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    write_photos(root / "photos" / NAME, count)


def add_rows(root: Path, count: int) -> None:
    """Give the manifest of stage `raw` rows without a photo, until there are `count`."""
    path = root / "data" / "raw" / NAME / "manifest.parquet"
    photos = read_manifest(path)
    paths = [f"data/raw/{NAME}/images/{number:06d}" for number in range(count - len(photos))]
    made = pd.concat([photos.head(1)] * len(paths), ignore_index=True).assign(path=paths, sample_id=paths)
    made["image_id"] = [hashlib.sha256(one.encode()).hexdigest() for one in paths]
    write_manifest(pd.concat([photos, made], ignore_index=True), path)


def make_scores(root: Path) -> None:
    """Write what the sub-model stages write, at random. Photos score highest, so that pictures are of them."""
    noisy = read_manifest(root / "data" / "noisy" / NAME / "manifest.parquet")
    photo = noisy["path"].str.endswith(".png").to_numpy()
    ids = noisy["image_id"].tolist()
    for number in range(SUBSETS):
        draw, home = np.random.default_rng(number), root / "data" / "sub_model" / NAME / str(number)
        maps = draw.normal(5, 0.5, (len(ids), GRID, GRID)).astype(np.float16)
        scores = (draw.normal(5, 0.5, len(ids)) + 10 * photo).astype(np.float32)
        write_json({"sub_models": [number]}, home / "sub_models.json")
        Scores(tuple(ids), scores).write(home / str(number) / "scores.parquet")
        write_heat(dict(zip(ids, maps, strict=True)), home / str(number) / "maps.safetensors")
