"""Everything around the method: DVC stages, Dagster assets made from dvc.yaml, MLflow, Great Expectations."""

import time

STARTED = time.time()  # start of this process, before any other module of ours is imported
STARTED_MONOTONIC = time.monotonic()  # the same moment on a clock that nobody sets
