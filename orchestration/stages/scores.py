"""Stage `scores`: the sub-models' consensus on every training image, and heat maps of the most suspect ones."""

from llbnad.aggregate import aggregate, rank_correlation, score_table
from llbnad.files import write_csv, write_parquet
from llbnad.heat import mean_heat, write_heat
from llbnad.manifest import read_manifest
from llbnad.model import Model
from llbnad.partition import assign_subsets
from llbnad.scores import Scores
from orchestration import tracking
from orchestration.paths import stage_dir, sub_model_dir
from orchestration.stages.common import feature_store, params, run_stage


def main(scenario: str) -> None:
    """Aggregate the scores of SCENARIO's sub-models."""
    settings = params()
    config = settings.scenario(scenario)
    noisy = read_manifest(stage_dir("noisy", scenario) / "manifest.parquet")
    train = noisy[noisy["split"] == "train"]
    folders = [sub_model_dir(scenario, subset) for subset in settings.subsets]
    subsets = assign_subsets(train, len(folders), config.seed)
    table = score_table([Scores.read(folder / "scores.parquet") for folder in folders], subsets)
    table["score"] = aggregate(table, config.aggregation)
    agreement = rank_correlation(table)

    store = feature_store(settings, scenario)
    models = [Model.load(folder / "model.safetensors", store.device) for folder in folders]
    suspects = table["score"].nlargest(config.suspects).index.tolist()
    out = stage_dir("scores", scenario)
    write_heat(mean_heat(models, store, suspects), out / "suspects.safetensors")
    write_csv(agreement.rename_axis("sub_model").reset_index(), out / "rank_correlation.csv")
    write_parquet(table.reset_index(), out / "scores.parquet")
    lowest = float(agreement.min().min())
    print(f"scores {scenario}: {len(table)} images, {config.aggregation}; lowest rank correlation {lowest:.2f}")
    artifacts = [out / "scores.parquet", out / "rank_correlation.csv"]
    tracking.record("scores", scenario, settings, metrics={"rank_correlation_min": lowest}, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
