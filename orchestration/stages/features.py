"""Stage `features`: encode every image of a scenario that is not in the feature cache yet.

If the detector has a network of its own, no feature is needed and nothing is encoded. The index, which is this stage's
output, does not depend on that, so the detector is not a parameter of the stage. A later stage that misses a feature
encodes it.
"""

from llbnad.encoders import recipe
from llbnad.utils.files import write_json
from orchestration.pipeline.features import feature_store
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Fill the feature cache with SCENARIO's images."""
    settings = read_settings(scenario)
    store = feature_store(settings, scenario)
    wanted = store.image_ids if settings.scenario(scenario).detector.uses_features else []
    encoded = store.ensure(wanted)
    out = stage_dir("features", scenario)
    exact = recipe(store.config)
    index = {
        "encoder": store.config.model_dump(mode="json"),
        "weights_sha256": exact.weights,
        "fingerprint": exact.fingerprint,
        "images": store.image_ids,
    }
    write_json(index, out / "index.json")
    cached = len(wanted) - encoded
    line = f"features {scenario}: {encoded} images encoded, {cached} found in the cache"
    say(line, {"images encoded": encoded, "images found in the cache": cached})
    metrics = {"images_encoded": encoded, "images_cached": cached}
    return lambda: record_stage("features", scenario, settings, metrics=metrics)


if __name__ == "__main__":
    run_stage(main)
