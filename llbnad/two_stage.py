"""Both stages of LLBNAD in one process: what `llbnad run` does, and the shortest way to read the method.

The DVC stages in `orchestration/stages/` take the same steps one by one, each with its inputs and outputs on disk.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.config import METHOD
from llbnad.data.manifest import training_images, write_manifest
from llbnad.errors import ConfigError
from llbnad.evaluation.evaluate import Evaluation, evaluate, images_to_evaluate
from llbnad.evaluation.report import evaluation_plots, purification_plots
from llbnad.features.store import FeatureStore
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model
from llbnad.purification.comparators import train_methods, training_sets
from llbnad.purification.consensus import Consensus
from llbnad.purification.partition import assign_subsets
from llbnad.purification.patches import Maps, TrustedFeatures
from llbnad.purification.purify import Purified
from llbnad.purification.rounds import run_sub_models, select
from llbnad.purification.verdicts import with_verdicts
from llbnad.scenario import ScenarioSettings, check_subsets
from llbnad.utils.files import write_csv, write_json, write_parquet


@dataclass(frozen=True)
class TwoStageRun:
    """Everything a run made."""

    heat: Mapping[str, np.ndarray]  # out-of-fold patch maps (h, w) of the training images, by id
    noisy: pd.DataFrame  # the manifest with people's verdicts: labels filled in, excluded images left out
    scores: pd.DataFrame  # indexed by image id: sub_model_0 …, subset, score
    purified: Purified
    rounds: pd.DataFrame  # see `llbnad.purification.rounds.Selection.history`
    models: dict[str, Model]  # `llbnad` and its comparators
    evaluation: Evaluation


def run_two_stage(
    noisy: pd.DataFrame,
    features: FeatureStore,
    image_root: Path,
    num_subsets: int,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str] = MappingProxyType({}),
) -> TwoStageRun:
    """Purify the training images of `noisy`, train the final detector on what is kept, and test it.

    Args:
        noisy: manifest with `split` train or test.
        features: of its images.
        image_root: what its mask paths are relative to.
        num_subsets: T.
        settings: all of a scenario.
        verdicts: people's, by image id (`llbnad.purification.verdicts`).
    """
    try:
        check_subsets(num_subsets, settings)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    images = training_images(noisy)
    encoder, detector, seed = settings.encoder, settings.detector, settings.seed

    # Stage 1: sub-models on parts of the training set score everything; their consensus selects.
    subsets = assign_subsets(images, num_subsets, seed)

    def again(kept: Collection[str], trusted: Maps) -> Consensus:
        return run_sub_models(features, subsets, num_subsets, settings, kept, trusted)

    selection = select(run_sub_models(features, subsets, num_subsets, settings), settings, verdicts, again)
    purified, trusted = selection.purified, selection.trusted

    # Stage 2: a fresh detector on the selected images, and the comparators on theirs.
    noisy = with_verdicts(noisy, verdicts)
    images = training_images(noisy)
    sets = training_sets(images, purified.kept, settings.comparators, seed)
    models = train_methods(sets, {METHOD: trusted}, features, encoder, detector, seed)
    kept = images[images["image_id"].isin(purified.kept)]
    purified_features = TrustedFeatures(features, trusted)
    threshold = calibrate(kept, purified_features, encoder, detector, settings.calibration, seed)
    models[METHOD] = replace(models[METHOD], threshold=threshold)
    evaluation = evaluate(models, sets, noisy, features, image_root, seed)
    return TwoStageRun(
        selection.consensus.maps, noisy, selection.consensus.table, purified, selection.history, models, evaluation
    )


def write_run(run: TwoStageRun, features: FeatureStore, image_root: Path, suspects: int, out: Path) -> None:
    """Write a run's tables, models and pictures into `out`."""
    images = training_images(run.noisy)
    scored = images.merge(run.scores["score"].reset_index(), on="image_id", validate="1:1")
    write_parquet(run.scores.reset_index(), out / "scores.parquet")
    write_manifest(scored[scored["image_id"].isin(run.purified.kept)], out / "kept.parquet")
    write_manifest(scored[scored["image_id"].isin(run.purified.rejected)], out / "rejected.parquet")
    tested = images_to_evaluate(run.noisy)
    write_parquet(run.evaluation.predictions(tested), out / "predictions.parquet")
    run.models[METHOD].save(out / "model.safetensors")
    heat = {image_id: run.heat[image_id] for image_id in run.scores["score"].nlargest(suspects).index}
    purification_plots(scored, run.purified, heat, image_root, out / "plots" / "purification")
    evaluation_plots(run.evaluation, tested, run.models, features, image_root, suspects, out / "plots" / "evaluation")
    write_csv(run.rounds, out / "rounds.csv")
    write_csv(run.evaluation.comparison, out / "comparison.csv")
    write_json(run.evaluation.metrics(), out / "metrics.json")
