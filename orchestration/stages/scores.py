"""Stage `scores`: the sub-models' consensus on every training image, as a number and as a map of its patches."""

from llbnad.data.manifest import training_images
from llbnad.model.scores import Scores
from llbnad.purification.aggregate import agreement, rank_correlation
from llbnad.purification.heat import StoredHeat, write_heat
from llbnad.purification.joint_scores import consensus
from llbnad.purification.partition import assign_subsets, subset_numbers
from llbnad.utils.files import write_csv, write_parquet
from orchestration.pipeline.outputs import read_noisy
from orchestration.pipeline.paths import stage_dir, sub_model_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Aggregate the scores of SCENARIO's sub-models."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    train = training_images(read_noisy(scenario))
    subsets = assign_subsets(train, config.subsets, config.seed)
    stages = len(settings.sub_models)
    folders = [sub_model_dir(scenario, k % stages) / str(k) for k in subset_numbers(subsets)]
    scores = [Scores.read(folder / "scores.parquet") for folder in folders]
    found = consensus(scores, [StoredHeat(folder / "maps.safetensors") for folder in folders], subsets, config)

    out = stage_dir("scores", scenario)
    write_heat(found.maps, out / "maps.safetensors")
    write_csv(rank_correlation(found.table).rename_axis("sub_model").reset_index(), out / "rank_correlation.csv")
    write_parquet(found.table.reset_index(), out / "scores.parquet")
    lowest = agreement(found.table)
    said = "too few images in common to say" if lowest is None else f"{lowest:.2f}"
    say(f"scores {scenario}: {len(found.table)} images, {config.aggregation}; lowest rank correlation {said}")
    artifacts = [out / "scores.parquet", out / "rank_correlation.csv"]
    return lambda: record_stage("scores", scenario, settings, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
