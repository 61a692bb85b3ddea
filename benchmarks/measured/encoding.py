"""Images per second from files to features on disk, decoding included."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measured.data import solar_cells
from llbnad.config import EncoderConfig, Runtime
from llbnad.features.store import FeatureStore
from llbnad.utils.runtime import prepare

WARM_UP = 32  # images before the clock starts


def ours(threads: int, images: int) -> dict[str, Any]:
    """Fill the feature cache, which writes float16 files."""
    prepare(Runtime(device="cpu", threads=threads))
    manifest, root = solar_cells()
    ids = sorted(manifest["image_id"])[: WARM_UP + images]
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder), EncoderConfig(), manifest, root)
        store.ensure(ids[:WARM_UP])
        started = time.perf_counter()
        store.ensure(ids)
        seconds = time.perf_counter() - started
    return {"rate": (len(ids) - WARM_UP) / seconds, "n": len(ids) - WARM_UP}
