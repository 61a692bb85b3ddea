"""The feature store of a scenario, for the stages and commands of the pipeline."""

from pathlib import Path

from llbnad.features.store import FeatureStore
from llbnad.utils.runtime import prepare
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FEATURE_CACHE

IMAGE_ROOT = Path()  # manifests of the pipeline hold paths relative to the repository's root


def feature_store(params: Params, scenario: str) -> FeatureStore:
    """Open the scenario's features, on the device that params.yaml asks for."""
    device = prepare(params.runtime)
    return FeatureStore(
        FEATURE_CACHE,
        params.scenario(scenario).encoder,
        read_noisy(scenario),
        IMAGE_ROOT,
        str(device),
        params.runtime.batch_size,
        params.runtime.feature_cache,
    )
