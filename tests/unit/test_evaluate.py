"""Pixels that count as a defect in the pixel metrics, and pixels that do not."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from llbnad.config import EncoderConfig
from llbnad.detectors.patchcore.detector import PatchcoreConfig
from llbnad.evaluation.evaluate import evaluate
from llbnad.model.model import train
from tests.unit.test_detectors import DEFECT, NORMAL, SIDE, MadeFeatures

TESTED = NORMAL[30:] + DEFECT[:3]


@pytest.fixture(scope="module")
def model():
    return train(EncoderConfig(input_size=64), PatchcoreConfig(memory_size=400), MadeFeatures(), NORMAL[:30], 0)


def pixel_metrics(model, root, masks):
    """Pixel AUROC and AUPRO with the mask files of the defective images among `TESTED`, None for none."""
    images = pd.DataFrame({"image_id": TESTED, "split": "test", "sample_id": TESTED})
    images["anomaly_class"] = ["OK"] * 10 + ["scratch"] * 3
    images["mask_path"] = [None] * 10 + masks
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
