"""Stage `purified`: the policy's decision on every training image, overridden by people's verdicts, with pictures."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from llbnad.data.canvas import off_canvas
from llbnad.data.manifest import paths_of, training_images, write_manifest
from llbnad.evaluation.report import purification_plots
from llbnad.purification.heat import StoredHeat, write_heat
from llbnad.purification.joint_scores import Consensus
from llbnad.purification.notes import selection_notes
from llbnad.purification.patches import Maps
from llbnad.purification.rounds import run_sub_models, select
from llbnad.purification.score_list import score_list, suspect_list
from llbnad.purification.verdicts import excluded, read_verdicts
from llbnad.utils.files import write_csv, write_json, write_parquet
from orchestration.pipeline.features import IMAGE_ROOT, allow_images, feature_store
from orchestration.pipeline.outputs import read_noisy, trusted_patches
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, refuse_changed, run_stage
from orchestration.pipeline.summary import say
from orchestration.pipeline.validation import check_purified
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Select SCENARIO's normal training images."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    allow_images(settings, scenario)
    everything = read_noisy(scenario)
    verdicts = read_verdicts(Path(config.review))
    left_out = everything["image_id"].isin(excluded(verdicts))
    # labels stay the data set's own: a verdict that agrees with the policy must not make kept.parquet another file
    train = training_images(everything[~left_out])
    source = stage_dir("scores", scenario)
    table = pd.read_parquet(source / "scores.parquet").set_index("image_id")

    store = feature_store(settings, scenario)

    def again(kept: Collection[str], trusted: Maps) -> Consensus:
        return run_sub_models(store, table["subset"], config, kept, trusted)

    selection = select(Consensus(table, StoredHeat(source / "maps.safetensors")), config, verdicts, again, store.frames)
    result, table, maps = selection.purified, selection.consensus.table, selection.consensus.maps
    scores = table["score"].drop(excluded(verdicts), errors="ignore")
    out = stage_dir("purified", scenario)
    check_purified(train, scores.reset_index(), result.kept, result.rejected, out / "validation.json")

    scored = train.merge(scores.reset_index(), on="image_id", validate="1:1")
    kept = scored[scored["image_id"].isin(result.kept)]
    rejected = scored[scored["image_id"].isin(result.rejected)]
    paths = paths_of(everything)
    notes = selection_notes(table, result, paths)
    summary = selection.summary(train, verdicts, everything)
    heat = {image_id: maps[image_id] for image_id in scores.nlargest(config.suspects).index}
    heat = off_canvas(heat, store.frames)
    plots = purification_plots(scored, result, heat, IMAGE_ROOT, out / "plots", config.aggregation)
    write_parquet(table.reset_index(), out / "scores.parquet")
    write_heat(maps, out / "maps.safetensors")
    write_heat(selection.trusted, trusted_patches(scenario))
    write_csv(selection.history, out / "rounds.csv")
    write_json({**summary, "notes": notes}, out / "summary.json")
    listed = score_list(table["score"], result, paths, verdicts, config.aggregation)
    write_csv(listed, out / "scores.csv")
    to_look_at = suspect_list(table, result, paths, config.suspects, verdicts, config.aggregation)
    write_csv(to_look_at, out / "suspects.csv")
    write_manifest(everything[left_out], out / "excluded.parquet")
    write_manifest(rejected, out / "rejected.parquet")
    write_manifest(kept, out / "kept.parquet")
    rounds = len(selection.history)
    say(f"purified {scenario}: {rounds} round{'s' * (rounds > 1)}")
    if len(kept) < len(train) / 2:
        say(f"WARNING: purified {scenario} kept under half of the images: look at {out / 'plots'}")
    if verdicts:
        counts = ", ".join(f"{summary[f'n_verdict_{name}']} {name}" for name in ("normal", "defect", "exclude"))
        say(f"purified {scenario}: {config.review} says {counts}; {summary['n_overruled']} overrule the policy")
        say(f"purified {scenario}: {summary['n_verdict_elsewhere']} verdicts are of images not in this scenario")
    for note in notes:
        say(f"purified {scenario}: {note}")
    artifacts = [out / "kept.parquet", out / "rejected.parquet", out / "suspects.csv", out / "scores.csv", *plots]
    refuse_changed([Path(config.review)])
    return lambda: record_stage("purified", scenario, settings, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
