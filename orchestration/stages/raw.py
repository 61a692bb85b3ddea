"""Stage `raw`: the images of a source and their manifest. Bad files and duplicates are listed, never deleted."""

import shutil
from pathlib import Path

import pandas as pd

from llbnad.config import Dataset, ElpvDataset
from llbnad.data.decode import page_of
from llbnad.data.manifest import write_manifest
from llbnad.data.masks import join_masks, split_masks
from llbnad.data.sources import read_source
from llbnad.utils.files import file_digest, replacing, write_csv
from orchestration.pipeline.code import ChangedMeanwhileError
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import DATA, PARAMS, stage_dir
from orchestration.pipeline.stage import refuse_changed, run_stage
from orchestration.pipeline.summary import say
from orchestration.pipeline.validation import check_manifest


def main(dataset: str) -> None:
    """Read DATASET of params.yaml. Images that are not below data/ are copied to data/raw/DATASET/images."""
    config = load_params(PARAMS).dataset(dataset)
    out = stage_dir("raw", dataset)
    images = out / "images"
    scan, root = read_source(config, Path(config.root))
    manifest = scan.manifest.copy()
    copied = _is_copied(root, config)
    new_root = images if copied else root
    check_manifest(manifest, out / "validation.json")

    # an image's id is its content; a mask's content stands here, for the stages that read masks to depend on
    masks = sorted({mask for cell in manifest["mask_path"] for mask in split_masks(cell)})
    digests = [(path, file_digest(page_of(root / path)[0])) for path in masks]
    write_csv(pd.DataFrame(digests, columns=["mask_path", "sha256"]), out / "masks.csv")

    images.mkdir(parents=True, exist_ok=True)
    if copied:
        for path in [*manifest["path"], *masks]:
            file, _ = page_of(root / path)
            with replacing(images / file.relative_to(root)) as temporary:
                shutil.copyfile(file, temporary)
    manifest["path"] = [(new_root / path).as_posix() for path in manifest["path"]]
    manifest["mask_path"] = [
        join_masks([(new_root / mask).as_posix() for mask in split_masks(cell)]) for cell in manifest["mask_path"]
    ]
    write_csv(scan.rejected, out / "left_out.csv")
    write_csv(scan.folders, out / "folders.csv")
    write_manifest(manifest, out / "manifest.parquet")
    refuse_changed([root, *root.rglob("*")])
    if load_params(PARAMS).datasets.get(dataset) != config:
        raise ChangedMeanwhileError(f"datasets.{dataset} in {PARAMS} has changed while the stage ran: run again")
    say(f"raw {dataset}: {len(manifest)} images, {len(scan.rejected)} left out (left_out.csv says why)")
    for note in [*scan.notes, *scan.pixel_notes, *(f"in doubt: {doubt}" for doubt in scan.doubts)]:
        say(f"raw {dataset}: {note}")


def _is_copied(root: Path, dataset: Dataset) -> bool:
    """Return whether the dataset's images are copied into data/raw/<name>/images: if they are not below data/ already.

    A link below data/ counts as data. Its target is the user's choice and must not change the bytes.
    """
    return isinstance(dataset, ElpvDataset) or not root.absolute().is_relative_to(DATA.absolute())


if __name__ == "__main__":
    run_stage(main)
