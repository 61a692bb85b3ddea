"""Exported graphs compute what torch computes, on real images and for any batch size."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llbnad.data.images import load_square
from llbnad.inference.export import Format, export, load_exported, parity, torch_session
from llbnad.inference.predict import Predictor
from llbnad.model.model import Model
from llbnad.model.threshold import threshold_at
from tests.conftest import python

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def unseen(few_cells):
    """Paths and pixels of the defective cells, which no model here was trained on."""
    manifest, root = few_cells
    paths = [root / path for path in manifest["path"][manifest["anomaly_class"] != "OK"]]
    return paths, np.stack([load_square(path, 64) for path in paths])


@pytest.mark.parametrize("detector", ["patchcore", "padim", "dinomaly"])
def test_onnx_and_openvino_agree_with_torch_and_with_predict(detector, model_files, unseen, tmp_path):
    model = Model.load(model_files[detector])
    paths, images = unseen
    threshold = threshold_at(np.linspace(1, 2, 40), 0.1)
    targets = export(replace(model, threshold=threshold), list(Format), tmp_path)
    reference = torch_session(model)
    predictions = list(Predictor(model).predict(paths))
    assert reference(images)[0].tolist() == pytest.approx([one.score for one in predictions], rel=1e-5)
    for path in targets.values():
        session = load_exported(path, threads=1)
        found = parity(reference, session, images, batch_size=4)  # 4 and 2 images: the batch size is free
        # PaDiM on 14 images at 64 px amplifies a feature that rounds to the other side in another runtime's arithmetic
        assert found.score <= found.limit and found.map <= (2 if detector == "padim" else 1) * found.limit, found
        assert found.images == 6
        assert session(images)[1].shape == (6, *predictions[0].patch_map.shape)
        # an image's score does not depend on its companions
        assert session(images[:1])[0][0] == pytest.approx(session(images)[0][0], rel=1e-5)
    facts = json.loads((tmp_path / f"{detector}.json").read_text())
    assert facts["input"]["images"] == ["batch", 64, 64, 3] and facts["detector"]["name"] == detector
    assert facts["threshold"] == pytest.approx(threshold.value)
    assert facts["unsure"] == pytest.approx([threshold.unsure_low, threshold.unsure_high])


def test_parity_sees_a_difference(model_files, unseen):
    model = Model.load(model_files["patchcore"])
    session = torch_session(model)

    def shifted(images):
        score, patch_map = session(images)
        return score + 1e-3, patch_map

    found = parity(session, shifted, unseen[1])
    assert found.score == pytest.approx(1e-3, rel=1e-2) and found.map == 0 and not found.passed


def test_parity_with_nan_or_without_images_is_none(model_files, unseen):
    session = torch_session(Model.load(model_files["patchcore"]))

    def broken(images):
        score, patch_map = session(images)
        return score * np.nan, patch_map * np.nan

    assert not parity(session, broken, unseen[1]).passed
    assert not parity(session, session, unseen[1][:0]).passed
    assert parity(session, session, unseen[1]).passed


def test_without_the_extra_the_error_names_it(model_files, tmp_path):
    code = (
        "import sys, importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name.startswith('onnx') else found(name, *rest)\n"
        "from llbnad.cli import main\n"
        "main()"
    )
    done = python("-c", code, "export", model_files["padim"], "--out", tmp_path / "out")
    assert done.returncode == 2 and "pip install 'llbnad[export]'" in done.stderr
