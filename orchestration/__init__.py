"""Everything that is not the method: DVC stages, Dagster assets generated from dvc.yaml, MLflow, Great Expectations."""

import time

STARTED = time.time()  # of this process: before any other code of ours was read
