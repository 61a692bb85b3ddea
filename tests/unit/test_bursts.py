"""Images next to each other are found to be alike where they are, and only there; held out together, the rate holds."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from llbnad.config import CalibrationConfig, EncoderConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.errors import DataError
from llbnad.features.batch import Batch
from llbnad.model.bursts import Bursts, bursts_of
from llbnad.model.calibrate import calibrate
from llbnad.model.model import Model, train
from llbnad.model.threshold import FalsePositives, threshold_at
from llbnad.purification.notes import threshold_notes
from tests.conftest import made_manifest
from tests.unit.test_detectors import MadeFeatures

DETECTOR, ENCODER = PatchcoreConfig(memory_size=4000), EncoderConfig()
COUNT = 300


class Camera(MadeFeatures):
    """Images of parts, `burst` of each in a row; images of one part differ little, parts differ much."""

    def __init__(self, burst):
        super().__init__()
        self.burst = burst

    def batches(self, image_ids, description):
        ids = tuple(image_ids)
        found = []
        for image_id in ids:
            number = int(image_id)
            part, own = (np.random.default_rng([seed, one]) for seed, one in ((1, number // self.burst), (2, number)))
            found.append(part.normal(size=(4, 4, 24)) + 0.1 * own.normal(size=(4, 4, 24)))
        maps = torch.from_numpy(np.stack(found).astype(np.float32)).permute(0, 3, 1, 2)
        yield Batch(ids, (maps,))


def images(count=COUNT):
    manifest = made_manifest(count, 0)
    ids = [f"{number:04d}" for number in range(count)]
    return manifest.assign(image_id=ids, path=[f"good/img_{number}.png" for number in range(count)])


@pytest.mark.parametrize(("burst", "alike"), [(6, True), (1, False)])
def test_bursts_are_told_from_independent_images(burst, alike):
    settings = CalibrationConfig(target_fpr=0.05, burst=1)
    threshold, _ = calibrate(images(), Camera(burst), ENCODER, DETECTOR, settings, 0)
    found = threshold.bursts
    assert found.tested == 60 and found.alike is alike and not found.held_out_together
    said = [note for note in threshold_notes(threshold, FalsePositives(1, 100)) if "alike" in note]
    assert len(said) == alike and all("calibration.burst" in note and "`group`" in note for note in said)


@pytest.mark.parametrize(("burst", "same_as"), [(6, 10), (1, 1)])
def test_by_default_neighbours_are_held_out_together_where_they_are_alike_and_only_there(burst, same_as):
    camera = Camera(burst)
    default, of_regions = calibrate(images(), camera, ENCODER, DETECTOR, CalibrationConfig(target_fpr=0.05), 0)
    asked = CalibrationConfig(target_fpr=0.05, burst=same_as)
    chosen, of_regions_chosen = calibrate(images(), camera, ENCODER, DETECTOR, asked, 0)
    assert default.value == chosen.value and of_regions.value == of_regions_chosen.value
    assert default.bursts.alike is default.bursts.held_out_together is (burst > 1)
    said = [note for note in threshold_notes(default, FalsePositives(1, 100)) if "alike" in note]
    assert len(said) == (burst > 1) and all("hold 10 in a row out together" in note for note in said)


def test_neighbours_held_out_together_keep_the_rate_on_new_parts():
    features, kept = Camera(6), images()
    model = train(ENCODER, DETECTOR, features, kept["image_id"].tolist(), 0)
    new = model.score(features, [f"{number:04d}" for number in range(3000, 3300)]).values
    rates = {}
    for burst in (1, 10):
        settings = CalibrationConfig(target_fpr=0.05, burst=burst, bound="none")
        threshold, _ = calibrate(kept, features, ENCODER, DETECTOR, settings, 0)
        rates[burst] = (new > threshold.value).mean()
    assert threshold.bursts is None  # nothing is left to ask
    assert rates[1] > 0.5 and rates[10] < 0.15


def test_a_burst_follows_the_numbers_in_names_and_keeps_a_sample_together():
    names = ["b/img_2.png", "a/img_10.png", "a/img_9.png", "a/img_100.png", "b/img_1.png", "b/img_3.png"]
    rows = pd.DataFrame({"path": names, "sample_id": ["x", "y", "z", "w", "v", "x"]})
    # samples in order: z (a/img_9), y (a/img_10), w (a/img_100), v (b/img_1), x (b/img_2 and b/img_3)
    assert bursts_of(rows, 2).tolist() == [2, 0, 0, 1, 1, 2]
    pd.testing.assert_series_equal(bursts_of(rows.iloc[::-1], 2).sort_index(), bursts_of(rows, 2))
    assert (
        bursts_of(pd.DataFrame({"path": ["1²3.png", "²", "7", "a"], "sample_id": list("xyzw")}), 9).tolist() == [0] * 4
    )


def test_a_burst_of_all_images_is_refused():
    settings = CalibrationConfig(burst=30)
    with pytest.raises(DataError, match=r"calibration.burst 30 leaves one burst of 30 samples"):
        calibrate(images(30), Camera(6), ENCODER, DETECTOR, settings, 0)


def test_few_images_are_not_asked():
    threshold, _ = calibrate(images(40), Camera(6), ENCODER, DETECTOR, CalibrationConfig(target_fpr=0.1), 0)
    assert threshold.bursts is None and not [one for one in threshold_notes(threshold) if "alike" in one]


def test_chance_is_no_burst():
    assert not Bursts(100, 15, 30).alike and Bursts(100, 15, 31).alike
    assert not Bursts(100, 40, 40).alike  # as high alone: nothing to do with neighbours
    assert Bursts(100, 5, 54).times == pytest.approx(2.7)


def test_a_model_file_carries_what_was_found(tmp_path):
    model = train(ENCODER, DETECTOR, Camera(1), [f"{number:04d}" for number in range(20)], 0)
    threshold = replace(threshold_at(np.arange(99), 0.05), bursts=Bursts(60, 3, 20))
    replace(model, threshold=threshold).save(tmp_path / "a.safetensors")
    loaded = Model.load(tmp_path / "a.safetensors").threshold
    assert loaded.bursts == threshold.bursts == loaded.at(0.01).bursts
    with safe_open(tmp_path / "a.safetensors", framework="np") as stored:
        assert json.loads(stored.metadata()["llbnad"])["threshold"]["bursts"]["together"] == 20
    replace(model, threshold=threshold_at(np.arange(99), 0.05)).save(tmp_path / "b.safetensors")
    assert Model.load(tmp_path / "b.safetensors").threshold.bursts is None
