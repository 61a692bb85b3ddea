"""Everything that is not the method: DVC stages, Dagster assets generated from dvc.yaml, MLflow, Great Expectations."""
