"""Stage `scores`: the sub-models' consensus on every training image, as a number and as a map of its patches."""

from llbnad.aggregate import rank_correlation
from llbnad.consensus import consensus
from llbnad.files import write_csv, write_parquet
from llbnad.heat import StoredHeat, write_heat
from llbnad.manifest import read_manifest
from llbnad.partition import assign_subsets
from llbnad.scores import Scores
from orchestration import tracking
from orchestration.paths import stage_dir, sub_model_dir
from orchestration.settings import read_settings
from orchestration.stages.common import Record, run_stage


def main(scenario: str) -> Record:
    """Aggregate the scores of SCENARIO's sub-models."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    noisy = read_manifest(stage_dir("noisy", scenario) / "manifest.parquet")
    train = noisy[noisy["split"] == "train"]
    folders = [sub_model_dir(scenario, subset) for subset in settings.subsets]
    subsets = assign_subsets(train, len(folders), config.seed)
    scores = [Scores.read(folder / "scores.parquet") for folder in folders]
    found = consensus(scores, [StoredHeat(folder / "maps.safetensors") for folder in folders], subsets, config)
    agreement = rank_correlation(found.table)

    out = stage_dir("scores", scenario)
    write_heat(found.maps, out / "maps.safetensors")
    write_csv(agreement.rename_axis("sub_model").reset_index(), out / "rank_correlation.csv")
    write_parquet(found.table.reset_index(), out / "scores.parquet")
    lowest = float(agreement.min().min())
    print(f"scores {scenario}: {len(found.table)} images, {config.aggregation}; lowest rank correlation {lowest:.2f}")
    metrics = {"rank_correlation_min": lowest}
    artifacts = [out / "scores.parquet", out / "rank_correlation.csv"]
    return lambda: tracking.record("scores", scenario, settings, metrics=metrics, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
