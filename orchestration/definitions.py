"""What Dagster loads: assets generated from dvc.yaml, the registry behind them, the job that runs one scenario."""

from pathlib import Path

import dagster as dg

from llbnad.config import load_params
from orchestration.dvc_assets import dvc_assets
from orchestration.paths import PARAMS
from orchestration.registry_assets import registry_assets
from orchestration.serving_assets import serving_assets

ROOT = Path(__file__).resolve().parents[1]


def definitions(root: Path) -> dg.Definitions:
    """All definitions of the repository at `root`.

    Raises:
        ConfigError: params.yaml is wrong.
    """
    params = load_params(root / PARAMS)
    executor = dg.in_process_executor if params.runtime.executor == "in_process" else dg.multiprocess_executor
    pipeline = dvc_assets(root, list(params.scenarios))
    registry = registry_assets(root, pipeline[0].partitions_def)
    serving = serving_assets(root, pipeline[0].partitions_def)
    scenario = dg.define_asset_job(
        "scenario",
        selection=dg.AssetSelection.all() - dg.AssetSelection.assets(*serving),
        description="One scenario from raw data to the champion; what did not change is not computed again.",
    )
    return dg.Definitions(assets=[*pipeline, *registry, *serving], jobs=[scenario], executor=executor)


defs = definitions(ROOT)
