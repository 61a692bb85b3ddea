"""Both stages in one process, on features in which defects are easy to see."""

import numpy as np
import pandas as pd

from llbnad.config import InjectedNoise
from llbnad.data.contaminate import contaminate
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.policies.fraction import Fraction
from llbnad.policies.mad import Mad
from llbnad.scenario import ScenarioSettings
from llbnad.two_stage import run_two_stage
from tests.conftest import made_manifest
from tests.unit.test_detectors import MadeFeatures

# the method of the paper: disjoint subsets, one round, one kind of detector
SETTINGS = ScenarioSettings(
    detector=PatchcoreConfig(memory_size=600),
    sub_model_detector=None,
    subsets=3,
    partition="disjoint",
    rounds=1,
    selection=Fraction(keep=0.8),
)


def manifest():
    """80 normal and 40 anomalous samples whose ids `MadeFeatures` understands."""
    frame = made_manifest(80, 40)
    numbers = [*range(80), *range(1000, 1040)]
    return frame.assign(image_id=[f"{number:04d}" for number in numbers])


class Watched(MadeFeatures):
    """Remembers which images every fit asked for."""

    def __init__(self):
        super().__init__()
        self.fits = []

    def batches(self, image_ids, description):
        if description == "fit":
            self.fits.append(list(image_ids))
        yield from super().batches(image_ids, description)


def run(frame, settings=SETTINGS, ratio=0.2):
    noisy = contaminate(frame, InjectedNoise(ratio=ratio, max_ratio=0.4, test_share=0.25), 0)
    features = Watched()
    return noisy, features, run_two_stage(noisy, features, None, settings)


def test_stage_2_is_handed_no_defect_and_oracle_is_reached(tmp_path):
    noisy, features, result = run(manifest())
    train = noisy[noisy["split"] == "train"].set_index("image_id")["anomaly_class"]
    assert (train != "OK").sum() == 12
    stage_2 = features.fits[3]  # after the three sub-models
    assert len(stage_2) == 48
    assert set(train[stage_2]) == {"OK"}
    assert sorted(result.purified.kept) == stage_2
    rows = result.evaluation.comparison.set_index("method")
    assert rows.loc["llbnad", "contamination_after"] == 0
    assert rows.loc["none", "contamination_after"] == rows.loc["llbnad", "contamination_before"] == 0.2
    assert rows.loc["llbnad", "image_auroc"] >= rows.loc["none", "image_auroc"]
    assert rows.loc["llbnad", "image_auroc"] == rows.loc["oracle", "image_auroc"] == 1


def test_sub_models_train_on_disjoint_subsets_that_cover_all():
    noisy, features, _ = run(manifest())
    subsets = [set(ids) for ids in features.fits[:3]]
    assert set.union(*subsets) == set(noisy.loc[noisy["split"] == "train", "image_id"])
    assert sum(map(len, subsets)) == len(set.union(*subsets))


def test_order_of_images_changes_nothing():
    first = run(manifest())[2]
    second = run(manifest().sample(frac=1, random_state=3))[2]
    assert first.purified == second.purified
    pd.testing.assert_frame_equal(first.scores, second.scores)
    pd.testing.assert_frame_equal(first.evaluation.comparison, second.evaluation.comparison)


def test_clean_data_stays_nearly_whole_under_mad():
    settings = SETTINGS.model_copy(update={"selection": Mad(k=3.5)})
    noisy, _, result = run(manifest(), settings, ratio=0.0)
    assert len(result.purified.kept) >= 0.9 * (noisy["split"] == "train").sum()


def test_unlabelled_images_run_through_without_metrics():
    frame = manifest().assign(anomaly_class=None, split="train")
    result = run_two_stage(frame, MadeFeatures(), None, SETTINGS)
    metrics = result.evaluation.metrics()
    assert metrics["image_auroc"] is None and metrics["contamination_after"] is None
    assert metrics["n_selected"] == 96
    assert np.isfinite(result.evaluation.scores["llbnad"].values).all()
    assert set(result.models) == {"llbnad", "none", "random"}
