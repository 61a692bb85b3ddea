"""The tables of benchmarks/dvc.yaml as assets. A materialisation runs the DVC stage and shows table and pictures."""

from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from orchestration.assets.asset_metadata import metadata_of_files
from orchestration.assets.failure import failing
from orchestration.pipeline import code, dvc
from orchestration.pipeline.paths import BENCHMARK_STAGES
from orchestration.pipeline.repro import repro_stage


def benchmark_assets(root: Path) -> list[dg.AssetsDefinition]:
    """Return one asset `benchmark_<stage>` per stage of the file, or no asset without the file.

    These assets do not depend on scenarios.
    """
    if not (root / BENCHMARK_STAGES).exists():
        return []
    return [_asset(root, template) for template in dvc.templates(root, BENCHMARK_STAGES).values()]


def _asset(root: Path, template: dvc.Template) -> dg.AssetsDefinition:
    stage = f"{BENCHMARK_STAGES}:{template.name}"

    @dg.asset(
        name=f"benchmark_{template.name}",
        description=template.desc,
        group_name=template.meta.get("group"),
        kinds={"dvc", *template.meta.get("kinds", [])},
        code_version=code.code_version(template.cmd, code.listings(root)[template.code]),
        metadata={"dvc stage": stage, "command": template.cmd},
    )
    def materialise(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        with failing(context):
            if not code.are_current(root):
                repro_stage(root, code.STAGE, context.log.info)
            outcome = repro_stage(root, stage, context.log.info)
        body = yaml.safe_load((root / BENCHMARK_STAGES).read_text())["stages"][template.name]
        files = [root / path for out in body["outs"] for path in out]
        return dg.MaterializeResult(metadata={"outcome": outcome, "dvc stage": stage, **metadata_of_files(files)})

    return materialise
