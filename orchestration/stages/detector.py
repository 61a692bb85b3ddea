"""Stage `detector`: the final detector, trained afresh on the purified images, its threshold, and its comparators."""

from dataclasses import replace

import pandas as pd

from llbnad.calibrate import calibrate
from llbnad.comparators import METHOD, training_sets
from llbnad.files import write_parquet
from llbnad.heat import StoredHeat
from llbnad.manifest import read_manifest
from llbnad.model import Model, derived_seed, train
from llbnad.patches import TrustedFeatures
from orchestration import tracking
from orchestration.paths import stage_dir
from orchestration.settings import read_settings
from orchestration.stages.common import Record, feature_store, run_stage


def main(scenario: str) -> Record:
    """Train SCENARIO's final detector and comparators."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    noisy = read_manifest(stage_dir("noisy", scenario) / "manifest.parquet")
    kept = read_manifest(stage_dir("purified", scenario) / "kept.parquet")
    left_out = read_manifest(stage_dir("purified", scenario) / "excluded.parquet")["image_id"]
    train_rows = noisy[(noisy["split"] == "train") & ~noisy["image_id"].isin(left_out)]
    sets = training_sets(train_rows, kept["image_id"].tolist(), config.comparators, config.seed)

    store = feature_store(settings, scenario)
    trusted = StoredHeat(stage_dir("purified", scenario) / "trusted.safetensors")
    purified = TrustedFeatures(store, trusted)
    threshold = calibrate(kept, purified, config.encoder, config.detector, config.calibration, config.seed)
    out = stage_dir("detector", scenario)
    trained: dict[tuple[str, ...], Model] = {}
    for method, image_ids in sets.items():
        seed = derived_seed(config.seed, "detector")
        if method == METHOD and trusted:  # then it is not what a comparator with the same images is
            model = train(config.encoder, config.detector, purified, image_ids, seed)
        else:
            if image_ids not in trained:  # at α = 0 none and oracle are the same set
                trained[image_ids] = train(config.encoder, config.detector, store, image_ids, seed)
            model = trained[image_ids]
        if method == METHOD:
            model = replace(model, threshold=threshold)
        model.save(out / f"{method}.safetensors")
    rows = [(method, image_id) for method, image_ids in sets.items() for image_id in image_ids]
    write_parquet(pd.DataFrame(rows, columns=["method", "image_id"]), out / "training_sets.parquet")
    print(f"detector {scenario}: " + ", ".join(f"{method} on {len(ids)}" for method, ids in sets.items()) + " images")
    metrics: dict[str, float | None] = {f"n_selected_{method}": len(ids) for method, ids in sets.items()}
    if threshold is not None:
        print(f"detector {scenario}: {threshold.describe()}")
        numbers = ("value", "low", "high", "fpr_low", "fpr_high")
        metrics |= {f"threshold_{name}": threshold.summary()[name] for name in numbers}
    artifacts = [out / f"{METHOD}.safetensors", out / "training_sets.parquet"]
    return lambda: tracking.record("detector", scenario, settings, metrics=metrics, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
