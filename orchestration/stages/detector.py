"""Stage `detector`: the final detector, newly trained on the purified images, its thresholds and its comparators."""

from dataclasses import replace

import pandas as pd

from llbnad.config import METHOD
from llbnad.data.manifest import common_window, training_images
from llbnad.model.calibrate import calibrate
from llbnad.purification.comparators import train_methods, training_sets
from llbnad.purification.heat import StoredHeat
from llbnad.purification.patches import TrustedFeatures
from llbnad.utils.files import write_json, write_parquet
from orchestration.pipeline.features import feature_store
from orchestration.pipeline.outputs import read_noisy, read_purified, trusted_patches
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import plugin_versions, read_settings
from orchestration.pipeline.stage import Recorder, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Train SCENARIO's final detector and comparators."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    noisy = read_noisy(scenario)
    kept = read_purified(scenario, "kept")
    left_out = read_purified(scenario, "excluded")["image_id"]
    train_rows = training_images(noisy[~noisy["image_id"].isin(left_out)])
    sets = training_sets(train_rows, kept["image_id"].tolist(), config.comparators, config.seed)

    store = feature_store(settings, scenario)
    trusted = StoredHeat(trusted_patches(scenario))
    purified = TrustedFeatures(store, trusted)
    threshold, pixels = calibrate(
        kept, purified, config.encoder, config.detector, config.calibration, config.seed, store.region
    )
    out = stage_dir("detector", scenario)
    models = train_methods(sets, {METHOD: trusted}, store, config.encoder, config.detector, config.seed)
    models[METHOD] = replace(models[METHOD], threshold=threshold, pixel_threshold=pixels)
    window = common_window(train_rows)
    for method, model in models.items():
        replace(model, window=window, region=store.region).save(out / f"{method}.safetensors")
    rows = [(method, image_id) for method, image_ids in sets.items() for image_id in image_ids]
    write_parquet(pd.DataFrame(rows, columns=["method", "image_id"]), out / "training_sets.parquet")
    if plugins := plugin_versions(config):  # stage `evaluation` runs this code too, and follows this folder
        write_json(plugins, out / "plugins.json")
    say(f"detector {scenario}: " + ", ".join(f"{method} on {len(ids)}" for method, ids in sets.items()) + " images")
    if threshold is not None:
        say(f"detector {scenario}: {threshold.describe()}")
    if pixels is not None:
        say(f"detector {scenario}: {pixels.describe()}")
    artifacts = [out / f"{METHOD}.safetensors", out / "training_sets.parquet"]
    return lambda: record_stage("detector", scenario, settings, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
