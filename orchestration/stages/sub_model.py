"""Stage `sub_model`: one detector, trained on its part of the training images, scores all training images."""

from llbnad.data.manifest import training_images
from llbnad.purification.heat import write_heat
from llbnad.purification.partition import assign_subsets
from llbnad.purification.sub_models import train_sub_model
from orchestration.pipeline.features import feature_store
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.paths import sub_model_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Record, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str, subset: int) -> Record:
    """Train sub-model SUBSET of SCENARIO."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    images = training_images(read_noisy(scenario))
    subsets = assign_subsets(images, len(settings.subsets), config.seed)
    store = feature_store(settings, scenario)
    model, own = train_sub_model(subset, store, subsets, len(settings.subsets), config)
    scores, maps = model.score_with_maps(store, images["image_id"].tolist())
    out = sub_model_dir(scenario, subset)
    scores.write(out / "scores.parquet")
    write_heat(maps, out / "maps.safetensors")
    model.save(out / "model.safetensors")
    say(f"sub_model {scenario} {subset}: trained on {len(own)} of {len(images)} images, scored all")
    metrics = {"n_train": len(own), "n_scored": len(images), "score_median": float(scores.series().median())}
    artifacts = [out / "scores.parquet", out / "model.safetensors"]
    return lambda: record_stage("sub_model", scenario, settings, subset=subset, metrics=metrics, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
