"""What is done with a champion, when somebody asks for it: score a folder of images. Not part of the pipeline's job."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.asset_metadata import metadata_of_files
from orchestration.paths import DATA
from orchestration.registry import model_name
from orchestration.registry_assets import CHAMPION, run_module

PREDICTIONS = "predictions"


class PredictionConfig(dg.Config):
    """Run configuration of `predictions`."""

    folder: str = ""  # images to score, with subfolders; relative to the repository or absolute
    fpr: float | None = None  # sensitivity: false positives accepted; without one, the model's own threshold


def serving_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """`predictions`, partitioned like the pipeline.

    Args:
        root: the repository.
        partitions: of the pipeline's assets.
    """

    @dg.asset(
        name=PREDICTIONS,
        deps=[CHAMPION],
        partitions_def=partitions,
        group_name="serving",
        kinds={"mlflow", "torch"},
        output_required=False,
        description="A folder of images scored by the champion; the run's configuration names the folder",
    )
    def predictions(context: dg.AssetExecutionContext, config: PredictionConfig) -> Iterator[Any]:
        if not config.folder:
            context.log.warning("nothing to score: name a folder in the configuration, ops.predictions.config.folder")
            return
        out = DATA / PREDICTIONS / context.partition_key
        address = f"models:/{model_name(context.partition_key)}@{CHAMPION}"
        knob = [] if config.fpr is None else ["--fpr", str(config.fpr)]
        run_module(root, ["orchestration.predict", address, config.folder, "--out", str(out), *knob], context)
        shown = metadata_of_files([root / out / name for name in ("predictions.csv", "contact_sheet.png")])
        yield dg.MaterializeResult(metadata={"model": address, "folder": config.folder, **shown})

    return [predictions]
