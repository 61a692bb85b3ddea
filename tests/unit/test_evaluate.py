"""Which images and pixels count in the metrics, and which do not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.config import EncoderConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.evaluation.evaluate import evaluate
from llbnad.evaluation.region_rates import REGION_METRICS, RegionRates
from llbnad.evaluation.results import DECISION, IMAGE_METRICS, PIXEL_METRICS
from llbnad.model.model import train
from llbnad.model.pixel_threshold import PixelThreshold
from llbnad.model.threshold import threshold_at
from llbnad.regions.find import region_level
from tests.unit.test_detectors import DEFECT, NORMAL, SIDE, MadeFeatures

TESTED = NORMAL[30:] + DEFECT[:3]


@pytest.fixture(scope="module")
def model():
    return train(EncoderConfig(input_size=64), PatchcoreConfig(memory_size=400), MadeFeatures(), NORMAL[:30], 0)


def pixel_metrics(model, root, masks):
    """Pixel AUROC and AUPRO with the mask files of the defective images among `TESTED`, None for none."""
    images = pd.DataFrame({"image_id": TESTED, "split": "test", "sample_id": TESTED})
    images["anomaly_class"] = ["OK"] * 10 + ["scratch"] * 3
    images["path"], images["mask_path"] = images["image_id"] + ".png", [None] * 10 + masks
    images["width"] = images["height"] = SIDE
    found = evaluate({"llbnad": model}, {"llbnad": []}, images, MadeFeatures(), root, 0).metrics()
    return found["pixel_auroc"], found["aupro"]


def test_a_defective_image_without_a_mask_or_with_an_empty_one_says_nothing_of_pixels(model, tmp_path):
    defect = np.zeros((SIDE, SIDE), np.uint8)
    Image.fromarray(defect).save(tmp_path / "empty.png")
    defect[2:5, 5:8] = 255
    Image.fromarray(defect).save(tmp_path / "defect.png")
    missing = pixel_metrics(model, tmp_path, ["defect.png", "defect.png", None])
    assert missing == pixel_metrics(model, tmp_path, ["defect.png", "defect.png", "empty.png"])
    assert min(missing) > 0.9
    assert pixel_metrics(model, tmp_path, ["empty.png"] * 3) == (None, None)


def evaluated(model, split, labels, masks=None):
    """Evaluate a detector that learnt NORMAL[:30] on these and the images of `TESTED`, beside one that learnt all."""
    ids = NORMAL[:30] + TESTED
    images = pd.DataFrame({"image_id": ids, "sample_id": ids, "split": ["train"] * 30 + [split] * len(TESTED)})
    images["path"], images["mask_path"] = images["image_id"] + ".png", None
    images["anomaly_class"] = labels
    sets = {"llbnad": NORMAL[:30], "none": ids}
    return images, evaluate({"llbnad": model, "none": model}, sets, images, MadeFeatures(), None, 0)


LABELS = ["OK"] * 40 + ["scratch"] * 3


@pytest.fixture(scope="module")
def calibrated(model):
    scores = model.score(MadeFeatures(), NORMAL[30:], "").values
    return replace(model, threshold=threshold_at(scores, 0.1))


def test_images_that_a_detector_learnt_are_no_test_of_it(calibrated):
    """Without a test set all images are scored, but there is no metric, of any method."""
    _, found = evaluated(calibrated, "train", LABELS)
    metrics = found.metrics()
    given = {name for name in (*IMAGE_METRICS, *PIXEL_METRICS, *DECISION) if metrics[name] is not None}
    assert given == {"threshold", "recall_of_rejected", "rejected_called_normal"}
    assert found.comparison[[*IMAGE_METRICS, *PIXEL_METRICS]].isna().all(axis=None)
    assert set(found.comparison["method"]) == {"llbnad", "none"}
    assert len(found.scores["llbnad"].image_ids) == 43
    assert (metrics["n_labelled"], metrics["n_tested"]) == (43, 0)
    assert metrics["recall_of_rejected"] == 1
    assert "an image that a detector learnt is no test of it" in found.caveats()[0]
    assert found.caveats()[1] == "of the rejected images with a defect label 100% are called defects"
    calm = int((found.scores["llbnad"].of(TESTED) <= calibrated.threshold.value).sum())
    assert metrics["rejected_called_normal"] == calm > 0
    assert found.caveats()[2].startswith(f"of the images not kept {calm} are called normal ({TESTED[0]}.png, ")


def test_labels_of_learnt_images_do_not_change_what_a_test_set_says(calibrated):
    _, found = evaluated(calibrated, "test", LABELS)
    metrics = found.metrics()
    assert (metrics["n_labelled"], metrics["n_tested"]) == (13, 13)
    assert metrics["image_auroc"] == 1 and metrics["recall_at_threshold"] == 1
    assert metrics["fpr_at_threshold"] <= 0.1 and metrics["recall_of_rejected"] is None
    assert found.caveats() == []
    unknown = evaluated(calibrated, "test", [None] * 30 + LABELS[30:])[1].metrics()
    assert {name: unknown[name] for name in IMAGE_METRICS} == {name: metrics[name] for name in IMAGE_METRICS}


def test_defects_that_were_learnt_are_not_called_found(calibrated):
    """Five images that people call defects were kept: they count nowhere."""
    _, found = evaluated(calibrated, "train", ["scratch"] * 5 + [None] * 35 + ["scratch"] * 3)
    metrics = found.metrics()
    assert metrics["recall_of_rejected"] == 1 and metrics["n_labelled"] == 8 and metrics["image_auroc"] is None
    none_rejected = evaluated(calibrated, "train", ["scratch"] * 5 + [None] * 38)[1]
    assert none_rejected.metrics()["recall_of_rejected"] is None and len(none_rejected.caveats()) == 2


def test_regions_are_counted_in_pixels_of_the_original_image(model, tmp_path):
    """Two defects of one mask, one of them touched; a region on one of two normal images."""
    levels = threshold_at(np.linspace(0, 1, 20), 0.1, "none", unsure=False)
    threshold = PixelThreshold(levels, 1 / SIDE**2)
    patch_map = np.zeros((SIDE, SIDE), np.float32)
    patch_map[2:4, 2:4] = 2
    mask = np.zeros((10 * SIDE, 20 * SIDE), bool)
    mask[25:35, 45:75] = mask[-20:, -20:] = True
    rates = RegionRates()
    assert rates.result() == {"region_recall": None, "false_regions_per_normal": None, "normal_with_region": None}
    regions = threshold.regions(patch_map, mask.shape[::-1])
    rates.add_defects(regions, mask)
    rates.add_defects([], mask[:-20])
    rates.add_normal(regions * 3)
    rates.add_normal([])
    assert rates.result() == {"region_recall": 1 / 3, "false_regions_per_normal": 1.5, "normal_with_region": 0.5}


def test_regions_are_measured_where_there_are_masks_alone(calibrated, tmp_path):
    maps = calibrated.score_with_maps(MadeFeatures(), NORMAL[30:])[1]
    levels = threshold_at([region_level(one, 1 / SIDE**2) for one in maps.values()], 0.2, unsure=False)
    model = replace(calibrated, pixel_threshold=PixelThreshold(levels, 1 / SIDE**2))
    bare = evaluated(model, "test", LABELS)[1].metrics()
    assert bare["pixel_threshold"] == levels.value and {bare[name] for name in REGION_METRICS} == {None}
    Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(tmp_path / "all.png")
    images = pd.DataFrame({"image_id": TESTED, "split": "test", "sample_id": TESTED, "path": "none.png"})
    images["anomaly_class"] = ["OK"] * 10 + ["scratch"] * 3
    images["mask_path"] = [None] * 10 + ["all.png"] * 2 + [None]
    images["width"] = images["height"] = 5 * SIDE
    found = evaluate({"llbnad": model}, {"llbnad": []}, images, MadeFeatures(), tmp_path, 0).metrics()
    assert found["region_recall"] == 1 and 0 < found["normal_with_region"] <= found["false_regions_per_normal"]
