"""`python -m orchestration mend`: mend what a killed process left cut off, as `dvc` of .venv and all doors do."""

import os
from pathlib import Path

from orchestration.pipeline.left_behind import mend as mend_files


def mend() -> None:
    """Mend DVC's own files after a kill: `.dvc/tmp/rwlock` and dvc.lock; lost stages come back from the cache."""
    mend_files(Path.cwd(), besides=os.getppid())  # the `dvc` of .venv waits for this command
