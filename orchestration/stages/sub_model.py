"""Stage `sub_model`: one detector trained on its part of the training images; it scores all of them."""

from llbnad.heat import write_heat
from llbnad.manifest import read_manifest
from llbnad.partition import assign_subsets
from llbnad.sub_models import train_sub_model
from orchestration import tracking
from orchestration.paths import stage_dir, sub_model_dir
from orchestration.settings import read_settings
from orchestration.stages.common import Record, feature_store, run_stage


def main(scenario: str, subset: int) -> Record:
    """Train sub-model SUBSET of SCENARIO."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    noisy = read_manifest(stage_dir("noisy", scenario) / "manifest.parquet")
    images = noisy[noisy["split"] == "train"]
    subsets = assign_subsets(images, len(settings.subsets), config.seed)
    store = feature_store(settings, scenario)
    model, own = train_sub_model(subset, store, subsets, len(settings.subsets), config)
    scores, maps = model.score_with_maps(store, images["image_id"].tolist())
    out = sub_model_dir(scenario, subset)
    scores.write(out / "scores.parquet")
    write_heat(maps, out / "maps.safetensors")
    model.save(out / "model.safetensors")
    print(f"sub_model {scenario} {subset}: trained on {len(own)} of {len(images)} images, scored all")
    metrics = {"n_train": len(own), "n_scored": len(images), "score_median": float(scores.series().median())}
    artifacts = [out / "scores.parquet", out / "model.safetensors"]
    return lambda: tracking.record("sub_model", scenario, settings, subset=subset, metrics=metrics, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
