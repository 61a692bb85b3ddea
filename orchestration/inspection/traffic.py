"""Drift of the images that were scored: they are compared with the images of the line's last training."""

from contextlib import closing
from pathlib import Path

import pandas as pd

from llbnad.config import Files
from llbnad.data.manifest import common_window
from llbnad.data.sources.records import Listing, Record
from llbnad.data.sources.scan_files import scan
from llbnad.errors import DataError
from llbnad.features.store import FeatureStore
from llbnad.monitoring.drift import MOST_IMAGES, DriftReport, drift_report
from orchestration.inspection.ledger import Ledger
from orchestration.line.inbox import mark_of
from orchestration.pipeline.features import IMAGE_ROOT, feature_store
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FEATURE_CACHE, INSPECT, inspected_dir


def traffic_drift(params: Params, line: str, least: int) -> DriftReport | None:
    """Compare the newest scored images of a line, at most 500 whose files are still there, with its training images.

    Images that were learnt themselves, because they went to training too, are left out. The share of defects is not
    compared: the control chart shows it.

    Args:
        params: the content of params.yaml.
        line: the line.
        least: images on each side below which nothing is said.

    Returns:
        the report, or None if there are too few images.
    """
    manifest = read_noisy(line)
    learnt = manifest[manifest["split"] == "train"]
    paths = _scored(inspected_dir(line), INSPECT / line)
    if len(paths) < least or len(learnt) < least:
        return None
    store = feature_store(params, line)  # allows images their size as well
    window = common_window(learnt)
    files = Files() if window is None else _read_by(window)
    records = [Record((INSPECT / line / path).as_posix(), line, path) for path in paths]
    try:
        found = scan(Listing(IMAGE_ROOT, records, files=files)).manifest
    except DataError:  # none of the files is usable any more
        return None
    found = found[~found["image_id"].isin(manifest["image_id"])]
    if len(found) < least:
        return None
    both = pd.concat([learnt, found], ignore_index=True)
    runtime = params.runtime
    features = FeatureStore(
        FEATURE_CACHE, store.config, both, IMAGE_ROOT, store.device, runtime.batch_size, runtime.feature_cache
    )
    seed = params.scenario(line).seed
    return drift_report(list(learnt["image_id"]), list(found["image_id"]), features, both, IMAGE_ROOT, seed)


def _read_by(window: tuple[float, float]) -> Files:
    """Return how files are read by a fixed window."""
    return Files.model_validate({"intensity": list(window)})


def _scored(out: Path, images: Path) -> list[str]:
    """Return the paths of the newest scored images whose files have not changed since."""
    if not out.is_dir():
        return []
    with closing(Ledger(out)) as ledger:
        seen = ledger.seen()
        scored = [row.path for row in ledger.rows() if row.score is not None]
    there = [path for path in reversed(dict.fromkeys(scored)) if path in seen and mark_of(images / path) == seen[path]]
    return there[:MOST_IMAGES]
