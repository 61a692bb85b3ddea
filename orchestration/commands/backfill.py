"""`python -m orchestration backfill`: tell Dagster what a plain `dvc repro` made."""

from pathlib import Path

from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS


def backfill() -> None:
    """Report to Dagster what dvc.lock has of all scenarios and Dagster does not know yet."""
    from orchestration.assets.backfill import record_materialisations  # imports Dagster, which takes a second

    root = Path.cwd()
    reported = record_materialisations(root, list(load_params(root / PARAMS).scenarios))
    print(f"{reported} materialisations reported to Dagster")
