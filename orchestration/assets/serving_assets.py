"""Assets that use a champion on request: score a folder, or export the model. The pipeline's job leaves them out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from llbnad.inference.export import check_installed
from llbnad.inference.exported import ExtraMissingError, Format
from orchestration.assets.asset_metadata import metadata_of_files
from orchestration.assets.check_texts import check_spec
from orchestration.assets.checked_asset import checked_asset
from orchestration.assets.command import run_command
from orchestration.assets.registry_assets import CHAMPION
from orchestration.pipeline.paths import DATA
from orchestration.pipeline.pipes import PARITY
from orchestration.registry.store import model_name

PREDICTIONS, EXPORTED = "predictions", "exported"


class PredictionConfig(dg.Config):
    """Run configuration of `predictions`."""

    folder: str = Field(
        "",
        description="Required, nothing is scored without it: images, with subfolders; relative or absolute",
    )
    fpr: float | None = Field(None, description="False positives accepted, in (0, 1); none: the model's own threshold")
    heatmaps: bool = Field(True, description="Write one heat map per image, as large as the image")


class ExportConfig(dg.Config):
    """Run configuration of `exported`."""

    onnx: bool = Field(True, description="Write an ONNX graph")
    openvino: bool = Field(True, description="Write an OpenVINO graph")
    size: str | None = Field(
        None, description="WIDTHxHEIGHT of the images, if a region of interest depends on it and they have several"
    )


def serving_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """Return the assets `predictions` and `exported`, partitioned like the pipeline.

    Args:
        root: root of the repository.
        partitions: partitions of the pipeline's assets.
    """
    return [_predictions(root, partitions), _exported(root, partitions)]


def _predictions(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
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
        sensitivity = [] if config.fpr is None else ["--fpr", str(config.fpr)]
        pictures = [] if config.heatmaps else ["--no-heatmaps"]
        command = [
            "predict",
            _address(context.partition_key),
            config.folder,
            "--out",
            str(out),
            *sensitivity,
            *pictures,
        ]
        files = [root / out / name for name in ("predictions.csv", "contact_sheet.png")]
        yield run_command(context, root, command, show=lambda: metadata_of_files(files))

    return predictions


def _exported(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        EXPORTED,
        deps=[CHAMPION],
        partitions_def=partitions,
        group_name="serving",
        kinds={"onnx", "openvino"},
        description="The champion as ONNX and OpenVINO graphs, compared with torch on images it was not trained on",
    )

    @checked_asset(spec, [check_spec(PARITY, EXPORTED, partitions)])
    def exported(context: dg.AssetExecutionContext, config: ExportConfig) -> Iterator[Any]:
        formats = [format for format in Format if getattr(config, format.value)]
        if missing := _missing_extra(formats):
            context.log.warning(missing)
            return
        scenario = context.partition_key
        wanted = [part for format in formats for part in ("--format", format.value)]
        if config.size is not None:
            wanted += ["--size", config.size]
        out = DATA / EXPORTED / scenario
        yield run_command(context, root, ["export", _address(scenario), scenario, "--out", str(out), *wanted])

    return exported


def _address(scenario: str) -> str:
    """Return MLflow's address of the scenario's champion."""
    return f"models:/{model_name(scenario)}@{CHAMPION}"


def _missing_extra(formats: list[Format]) -> str | None:
    """Return which extra must be installed for the formats, or None if nothing is missing."""
    try:
        for format in formats:
            check_installed(format)
    except ExtraMissingError as error:
        return str(error)
    return None
