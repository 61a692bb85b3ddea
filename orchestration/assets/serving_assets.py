"""What is done with a champion when somebody asks for it: score a folder, export it. Not part of the pipeline's job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from llbnad.inference.export import ExtraMissingError, Format, check_installed
from orchestration.assets.asset_metadata import metadata_of_files
from orchestration.assets.registry_assets import CHAMPION, run_module
from orchestration.pipeline.paths import DATA
from orchestration.registry.store import model_name

PREDICTIONS, EXPORTED, PARITY = "predictions", "exported", "parity"


class PredictionConfig(dg.Config):
    """Run configuration of `predictions`."""

    folder: str = ""  # images to score, with subfolders; relative to the repository or absolute
    fpr: float | None = None  # sensitivity: false positives accepted; without one, the model's own threshold


class ExportConfig(dg.Config):
    """Run configuration of `exported`."""

    onnx: bool = True
    openvino: bool = True


def serving_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """`predictions` and `exported`, partitioned like the pipeline.

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
        run_module(root, ["orchestration", "predict", address, config.folder, "--out", str(out), *knob], context)
        shown = metadata_of_files([root / out / name for name in ("predictions.csv", "contact_sheet.png")])
        yield dg.MaterializeResult(metadata={"model": address, "folder": config.folder, **shown})

    @dg.asset(
        name=EXPORTED,
        deps=[CHAMPION],
        partitions_def=partitions,
        group_name="serving",
        kinds={"onnx", "openvino"},
        output_required=False,
        description="The champion as ONNX and OpenVINO graphs, compared with torch on images it was not trained on",
        check_specs=[dg.AssetCheckSpec(PARITY, asset=EXPORTED)],
    )
    def exported(context: dg.AssetExecutionContext, config: ExportConfig) -> Iterator[Any]:
        formats = [format for format in Format if getattr(config, format.value)]
        try:
            for format in formats:
                check_installed(format)
        except ExtraMissingError as error:
            context.log.warning(str(error))
            severity = dg.AssetCheckSeverity.WARN
            yield dg.AssetCheckResult(passed=False, severity=severity, check_name=PARITY, description=str(error))
            return
        out = DATA / EXPORTED / context.partition_key
        address = f"models:/{model_name(context.partition_key)}@{CHAMPION}"
        wanted = [part for format in formats for part in ("--format", format.value)]
        run_module(
            root, ["orchestration", "export", address, context.partition_key, "--out", str(out), *wanted], context
        )
        report = json.loads((root / out / "parity.json").read_text())
        rows = [
            f"{name}|{r['score']:.1e}|{r['map']:.1e}|{r['limit']:.1e}|{r['images']}|{r['passed']}"
            for name, r in report.items()
        ]
        head = ["format|score differs|map differs|allowed|images|passed", "---|---|---|---|---|---"]
        table = dg.MetadataValue.md("\n".join([*head, *rows]))
        yield dg.MaterializeResult(
            metadata={"model": address, "folder": str(out), "parity": table},
            check_results=[
                dg.AssetCheckResult(
                    passed=all(item["passed"] for item in report.values()),
                    check_name=PARITY,
                    description="largest differences to torch: "
                    + ", ".join(f"{name} {max(r['score'], r['map']):.1e}" for name, r in report.items()),
                    metadata={"differences": table},
                )
            ],
        )

    return [predictions, exported]
