"""The feature store of a scenario, for the stages and commands of the pipeline."""

from pathlib import Path

from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.features.store import FeatureStore
from llbnad.utils.pixel_limit import limit_pixels_of
from llbnad.utils.runtime import prepare
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FEATURE_CACHE

IMAGE_ROOT = Path()  # manifests of the pipeline hold paths relative to the repository's root


def allow_images(params: Params, scenario: str) -> None:
    """Set this process's limit on the pixels of an image to that of the scenario's data set."""
    limit_pixels_of(params.dataset(params.scenario(scenario).dataset))


def feature_store(params: Params, scenario: str) -> FeatureStore:
    """Open the scenario's features, on the device that params.yaml asks for, and allow its images their size."""
    device = prepare(params.runtime)
    allow_images(params, scenario)
    return FeatureStore(
        FEATURE_CACHE,
        params.scenario(scenario).encoder,
        read_noisy(scenario),
        IMAGE_ROOT,
        str(device),
        params.runtime.batch_size,
        params.runtime.feature_cache,
        RegionOfInterest.read(params.scenario(scenario).region),
    )
