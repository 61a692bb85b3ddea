"""Stage `sub_model`: detectors, each trained on its part of the training images, score all training images.

A scenario has T sub-models and S such stages. Stage k holds the sub-models k, k + S, k + 2 S … below T.
"""

from llbnad.data.manifest import training_images
from llbnad.purification.heat import write_heat
from llbnad.purification.partition import assign_subsets, subset_numbers
from llbnad.purification.sub_models import train_sub_model
from llbnad.utils.files import write_json
from orchestration.pipeline.features import feature_store
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.paths import sub_model_dir, sub_models_of
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str, stage: int) -> Recorder:
    """Train the sub-models of SCENARIO that stage STAGE holds."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    images = training_images(read_noisy(scenario))
    subsets = assign_subsets(images, config.subsets, config.seed)
    numbers = sub_models_of(stage, len(settings.sub_models), len(subset_numbers(subsets)))
    store, home = feature_store(settings, scenario), sub_model_dir(scenario, stage)
    artifacts = [home / "sub_models.json"]
    write_json({"sub_models": list(numbers)}, artifacts[0])
    for number in numbers:
        model, own = train_sub_model(number, store, subsets, config)
        scores, maps = model.score_with_maps(store, images["image_id"].tolist())
        out = home / str(number)
        scores.write(out / "scores.parquet")
        write_heat(maps, out / "maps.safetensors")
        model.save(out / "model.safetensors")
        say(f"sub_model {scenario} {number}: trained on {len(own)} of {len(images)} images, scored all")
        artifacts += [out / "scores.parquet", out / "model.safetensors"]
    if not numbers:
        say(f"sub_model {scenario} {stage}: no sub-model, as the scenario has {len(subset_numbers(subsets))}")
    return lambda: record_stage("sub_model", scenario, settings, number=stage, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
