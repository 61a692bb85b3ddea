"""Stage `detector`: the final detector, trained afresh on the purified images, and its comparators."""

import pandas as pd

from llbnad.comparators import METHOD, training_sets
from llbnad.files import write_parquet
from llbnad.manifest import read_manifest
from llbnad.model import Model, derived_seed, train
from orchestration import tracking
from orchestration.paths import stage_dir
from orchestration.stages.common import feature_store, params, run_stage


def main(scenario: str) -> None:
    """Train SCENARIO's final detector and comparators."""
    settings = params()
    config = settings.scenario(scenario)
    noisy = read_manifest(stage_dir("noisy", scenario) / "manifest.parquet")
    kept = read_manifest(stage_dir("purified", scenario) / "kept.parquet")["image_id"].tolist()
    sets = training_sets(noisy[noisy["split"] == "train"], kept, config.comparators, config.seed)

    store = feature_store(settings, scenario)
    out = stage_dir("detector", scenario)
    trained: dict[tuple[str, ...], Model] = {}
    for method, image_ids in sets.items():
        if image_ids not in trained:  # at α = 0 none and oracle are the same set
            seed = derived_seed(config.seed, "detector")
            trained[image_ids] = train(config.encoder, config.detector, store, image_ids, seed)
        trained[image_ids].save(out / f"{method}.safetensors")
    rows = [(method, image_id) for method, image_ids in sets.items() for image_id in image_ids]
    write_parquet(pd.DataFrame(rows, columns=["method", "image_id"]), out / "training_sets.parquet")
    print(f"detector {scenario}: " + ", ".join(f"{method} on {len(ids)}" for method, ids in sets.items()) + " images")
    metrics = {f"n_selected_{method}": len(image_ids) for method, image_ids in sets.items()}
    artifacts = [out / f"{METHOD}.safetensors", out / "training_sets.parquet"]
    tracking.record("detector", scenario, settings, metrics=metrics, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
