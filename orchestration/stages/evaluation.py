"""Stage `evaluation`: metrics, curves and heat maps on the test images, for the final detector and its comparators."""

from pathlib import Path

import pandas as pd

from llbnad.config import METHOD
from llbnad.evaluation.evaluate import evaluate, images_to_evaluate
from llbnad.evaluation.report import evaluation_plots
from llbnad.model.model import Model
from llbnad.purification.heat import StoredHeat
from llbnad.purification.notes import threshold_notes
from llbnad.purification.patches import TrustedFeatures
from llbnad.purification.verdicts import read_verdicts, with_verdicts
from llbnad.sensitivity.report import sensitivity_of
from llbnad.utils.files import write_csv, write_json, write_parquet
from orchestration.pipeline.features import IMAGE_ROOT, feature_store
from orchestration.pipeline.outputs import read_noisy, read_summary, trusted_patches
from orchestration.pipeline.paths import stage_dir
from orchestration.pipeline.settings import read_settings
from orchestration.pipeline.stage import Recorder, refuse_changed, run_stage
from orchestration.pipeline.summary import say
from orchestration.tracking.best_effort import record_stage


def main(scenario: str) -> Recorder:
    """Evaluate SCENARIO's detectors on its test images."""
    settings = read_settings(scenario)
    config = settings.scenario(scenario)
    verdicts = read_verdicts(Path(config.review))
    noisy = with_verdicts(read_noisy(scenario), verdicts)
    store = feature_store(settings, scenario)
    folder = stage_dir("detector", scenario)
    rows = pd.read_parquet(folder / "training_sets.parquet")
    sets = {str(method): ids.tolist() for method, ids in rows.groupby("method", sort=False)["image_id"]}
    models = {method: Model.load(folder / f"{method}.safetensors", store.device) for method in sets}
    result = evaluate(models, sets, noisy, store, IMAGE_ROOT, config.seed)

    out = stage_dir("evaluation", scenario)
    images = images_to_evaluate(noisy)
    plots = evaluation_plots(result, images, models, store, IMAGE_ROOT, config.suspects, out / "plots")
    trusted = TrustedFeatures(store, StoredHeat(trusted_patches(scenario)))
    drawn = sensitivity_of(models[METHOD], noisy, sets[METHOD], trusted, IMAGE_ROOT, config.sensitivity, config.seed,
                           store.device, out / "plots")  # fmt: skip
    write_parquet(result.predictions(images), out / "predictions.parquet")
    write_csv(result.comparison, out / "comparison.csv")
    metrics = result.metrics()
    about_images = read_summary(scenario)["notes"]
    notes = about_images + threshold_notes(result.threshold, result.false_positives)
    write_json({**metrics, **(drawn.content if drawn else {}), "notes": notes}, out / "metrics.json")
    auroc = metrics["image_auroc"]
    known = f"{result.n_labelled} of {len(images)} images have a label"
    say(f"evaluation {scenario}: " + (f"I-AUROC {auroc:.3f}, " if auroc is not None else "scores only, ") + known)
    for line in [*result.caveats(), *notes, *([drawn.line] if drawn else [])]:
        say(f"evaluation {scenario}: {line}")
    artifacts = [
        out / "comparison.csv",
        out / "predictions.parquet",
        out / "metrics.json",
        *plots,
        *(drawn.files if drawn else ()),
    ]
    refuse_changed([Path(config.review)])
    return lambda: record_stage("evaluation", scenario, settings, artifacts=artifacts)


if __name__ == "__main__":
    run_stage(main)
