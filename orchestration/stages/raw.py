"""Stage `raw`: a source's images and their manifest. Bad and doubled files are listed, never deleted."""

import shutil
from pathlib import Path

import pandas as pd

from llbnad.config import load_params
from llbnad.files import file_digest, replacing, write_csv
from llbnad.manifest import write_manifest
from llbnad.sources import read_source
from orchestration.paths import PARAMS, stage_dir
from orchestration.stages.common import ChangedError, imported, refuse_changed, run_stage
from orchestration.validation import check_manifest


def main(dataset: str) -> None:
    """Read DATASET of params.yaml. A folder below data/ is only read; others are copied to data/raw/DATASET/images."""
    config = load_params(PARAMS).dataset(dataset)
    out = stage_dir("raw", dataset)
    images = out / "images"
    scan, root = read_source(config, Path(config.root))
    manifest = scan.manifest.copy()
    copied = imported(root, config)
    new_root = images if copied else root
    check_manifest(manifest, out / "validation.json")

    # an image's id is its content; a mask's content stands here, for the stages that read masks to depend on
    masks = sorted(manifest["mask_path"].dropna())
    digests = [(path, file_digest(root / path)) for path in masks]
    write_csv(pd.DataFrame(digests, columns=["mask_path", "sha256"]), out / "masks.csv")

    images.mkdir(parents=True, exist_ok=True)
    if copied:
        for path in [*manifest["path"], *manifest["mask_path"].dropna()]:
            with replacing(images / path) as temporary:
                shutil.copyfile(root / path, temporary)
    for column in ("path", "mask_path"):
        manifest[column] = manifest[column].map(lambda path: (new_root / path).as_posix(), na_action="ignore")
    write_csv(scan.rejected, out / "rejected.csv")
    write_manifest(manifest, out / "manifest.parquet")
    refuse_changed([root, *root.rglob("*")])
    if load_params(PARAMS).datasets.get(dataset) != config:
        raise ChangedError(f"datasets.{dataset} in {PARAMS} has changed while the stage ran: run again")
    print(f"raw {dataset}: {len(manifest)} images, {len(scan.rejected)} left out (rejected.csv says why)")


if __name__ == "__main__":
    run_stage(main)
