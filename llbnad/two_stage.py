"""Both stages of LLBNAD in one process, as `llbnad run` runs them. Start here to read the method.

The DVC stages in `orchestration/stages/` take the same steps one by one, with the inputs and outputs of each step on
disk.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from llbnad.config import METHOD
from llbnad.data.canvas import off_canvas
from llbnad.data.manifest import common_window, paths_of, training_images, write_manifest
from llbnad.data.region_of_interest import RegionOfInterest
from llbnad.evaluation.evaluate import evaluate, images_to_evaluate
from llbnad.evaluation.report import evaluation_plots, purification_plots
from llbnad.evaluation.results import Evaluation
from llbnad.features.source import FeatureSource
from llbnad.features.store import FeatureStore
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model
from llbnad.purification.comparators import train_methods, training_sets
from llbnad.purification.joint_scores import Consensus
from llbnad.purification.notes import selection_notes, threshold_notes
from llbnad.purification.partition import assign_subsets
from llbnad.purification.patches import Maps, TrustedFeatures
from llbnad.purification.purify import Purified
from llbnad.purification.rounds import Selection, run_sub_models, select
from llbnad.purification.score_list import score_list, suspect_list
from llbnad.purification.verdicts import read_verdicts, with_verdicts
from llbnad.scenario import ScenarioSettings
from llbnad.sensitivity.report import Sensitivity, sensitivity_of
from llbnad.utils.files import write_csv, write_json, write_parquet


@dataclass(frozen=True)
class TwoStageRun:
    """The results of a run."""

    heat: Mapping[str, np.ndarray]  # out-of-fold patch maps (h, w) of the training images, by id
    noisy: pd.DataFrame  # manifest after people's verdicts: missing labels filled in, excluded images left out
    scores: pd.DataFrame  # indexed by image id: sub_model_0 …, subset, score
    purified: Purified
    rounds: pd.DataFrame  # see `llbnad.purification.rounds.Selection.history`
    trusted: Maps  # patches of the kept images to learn from, by image id
    models: dict[str, Model]  # by method: `llbnad` and its comparators
    evaluation: Evaluation

    @property
    def notes(self) -> list[str]:
        """One plain line for each thing to know before one trusts the detector."""
        about_images = selection_notes(self.scores, self.purified, paths_of(self.noisy))
        return [*about_images, *threshold_notes(self.evaluation.threshold, self.evaluation.false_positives)]


def run_two_stage(
    noisy: pd.DataFrame,
    features: FeatureStore,
    image_root: Path,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str] = MappingProxyType({}),
) -> TwoStageRun:
    """Purify the training images of `noisy`, train the final detector on the kept images, and test it.

    Args:
        noisy: manifest with `split` train or test.
        features: features of its images.
        image_root: folder that its mask paths are relative to.
        settings: settings of the scenario.
        verdicts: people's verdicts by image id (`llbnad.purification.verdicts`).
    """
    selection = select_images(training_images(noisy), features, settings, verdicts)
    noisy = with_verdicts(noisy, verdicts)
    sets, models = train_final(training_images(noisy), selection, features, settings)
    evaluation = evaluate(models, sets, noisy, features, image_root, settings.seed)
    consensus = selection.consensus
    return TwoStageRun(
        consensus.maps,
        noisy,
        consensus.table,
        selection.purified,
        selection.history,
        selection.trusted,
        models,
        evaluation,
    )


def select_images(
    images: pd.DataFrame,
    features: FeatureSource,
    settings: ScenarioSettings,
    verdicts: Mapping[str, str] = MappingProxyType({}),
) -> Selection:
    """Run stage 1: sub-models on parts of the training set score all images, and their consensus selects.

    Args:
        images: manifest rows of the training images.
        features: features of these images.
        settings: settings of the scenario.
        verdicts: people's verdicts by image id.
    """
    subsets = assign_subsets(images, settings.subsets, settings.seed)

    def again(kept: Collection[str], trusted: Maps) -> Consensus:
        return run_sub_models(features, subsets, settings, kept, trusted)

    frames = features.frames if isinstance(features, FeatureStore) else {}
    return select(run_sub_models(features, subsets, settings), settings, verdicts, again, frames)


def train_final(
    images: pd.DataFrame, selection: Selection, features: FeatureSource, settings: ScenarioSettings
) -> tuple[dict[str, tuple[str, ...]], dict[str, Model]]:
    """Run stage 2: train a new detector with thresholds on the selected images, and the comparators on their images.

    Args:
        images: manifest rows of the training images, without the images that people excluded.
        selection: result of stage 1 for these images.
        features: features of these images.
        settings: settings of the scenario.

    Returns:
        image ids that each method trains on, and the trained models, by method.
    """
    encoder, detector, seed, kept = settings.encoder, settings.detector, settings.seed, selection.purified.kept
    sets = training_sets(images, kept, settings.comparators, seed)
    models = train_methods(sets, {METHOD: selection.trusted}, features, encoder, detector, seed)
    purified, rows = TrustedFeatures(features, selection.trusted), images[images["image_id"].isin(kept)]
    region = RegionOfInterest.read(settings.region)
    threshold, pixels = calibrate(rows, purified, encoder, detector, settings.calibration, seed, region)
    models[METHOD] = replace(models[METHOD], threshold=threshold, pixel_threshold=pixels)
    window = common_window(images)
    return sets, {method: replace(model, window=window, region=region) for method, model in models.items()}


def verdicts_of(settings: ScenarioSettings) -> dict[str, str]:
    """Read people's verdicts from the file that `settings.review` names. The default file need not exist."""
    default = type(settings).model_fields["review"].default
    return {} if settings.review == default else read_verdicts(Path(settings.review))


def write_run(
    run: TwoStageRun,
    features: FeatureStore,
    image_root: Path,
    settings: ScenarioSettings,
    out: Path,
    notes: Sequence[str] = (),
) -> Sensitivity | None:
    """Write a run's tables, models and pictures into `out`.

    Args:
        run: the results.
        features: features of its images.
        image_root: folder that its paths are relative to.
        settings: settings of the run.
        out: folder to write to.
        notes: notes on the images that were read, which come before the run's own.

    Returns:
        what the final detector finds of synthetic defects; None if `settings.sensitivity` asks for no image.
    """
    shown = settings.suspects
    images = training_images(run.noisy)
    scored = images.merge(run.scores["score"].reset_index(), on="image_id", validate="1:1")
    write_parquet(run.scores.reset_index(), out / "scores.parquet")
    write_manifest(scored[scored["image_id"].isin(run.purified.kept)], out / "kept.parquet")
    write_manifest(scored[scored["image_id"].isin(run.purified.rejected)], out / "rejected.parquet")
    tested = images_to_evaluate(run.noisy)
    write_parquet(run.evaluation.predictions(tested), out / "predictions.parquet")
    run.models[METHOD].save(out / "model.safetensors")
    heat = {image_id: run.heat[image_id] for image_id in run.scores["score"].nlargest(shown).index}
    heat = off_canvas(heat, features.frames)
    plots = out / "plots"
    purification_plots(scored, run.purified, heat, image_root, plots / "purification", settings.aggregation)
    evaluation_plots(run.evaluation, tested, run.models, features, image_root, shown, plots / "evaluation")
    write_csv(run.rounds, out / "rounds.csv")
    write_csv(run.evaluation.comparison, out / "comparison.csv")
    paths, verdicts = paths_of(run.noisy), verdicts_of(settings)
    listed = score_list(run.scores["score"], run.purified, paths, verdicts, settings.aggregation)
    write_csv(listed, out / "scores.csv")
    to_look_at = suspect_list(run.scores, run.purified, paths, shown, verdicts, settings.aggregation)
    write_csv(to_look_at, out / "suspects.csv")
    trusted = TrustedFeatures(features, run.trusted)
    model, kept = run.models[METHOD], run.purified.kept
    drawn = sensitivity_of(model, run.noisy, kept, trusted, image_root, settings.sensitivity, settings.seed,
                           features.device, out / "plots" / "evaluation")  # fmt: skip
    found = drawn.content if drawn else {}
    write_json({**run.evaluation.metrics(), **found, "notes": [*notes, *run.notes]}, out / "metrics.json")
    return drawn
