"""What Dagster loads: assets generated from dvc.yaml, and the job that runs one scenario end to end."""

from pathlib import Path

import dagster as dg

from llbnad.config import load_params
from orchestration.dvc_assets import dvc_assets
from orchestration.paths import PARAMS

ROOT = Path(__file__).resolve().parents[1]


def definitions(root: Path) -> dg.Definitions:
    """All definitions of the repository at `root`.

    Raises:
        ConfigError: params.yaml is wrong.
    """
    params = load_params(root / PARAMS)
    executor = dg.in_process_executor if params.runtime.executor == "in_process" else dg.multiprocess_executor
    scenario = dg.define_asset_job(
        "scenario",
        selection=dg.AssetSelection.all(),
        description="One scenario from raw data to the evaluated detector; what did not change is not computed again.",
    )
    return dg.Definitions(assets=dvc_assets(root, list(params.scenarios)), jobs=[scenario], executor=executor)


defs = definitions(ROOT)
