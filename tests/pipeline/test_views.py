"""A scenario with another view and a region of interest, through the pipeline."""

import numpy as np
import yaml
from PIL import Image

from llbnad.model.model import Model
from tests.pipeline.conftest import ENCODER, LINE, command, commit, make_workspace, repro


def test_view_and_region_reach_the_model_and_a_new_mask_is_never_mixed_with_the_old(tmp_path, line_images):
    mask = np.zeros((30, 30), np.uint8)
    mask[:, :15] = 255
    tiled = {**ENCODER, "view": "tiles", "tiles": [1, 2], "overlap": 0.25}
    few = {
        **LINE,
        "encoder": tiled,
        "region": {"mask": "mask.png"},
        "calibration": {**LINE["calibration"], "folds": 2},
    }
    root = make_workspace(tmp_path / "views", {"line": line_images}, {"line": few})
    Image.fromarray(mask).save(root / "mask.png")
    commit(root, "mask")
    repro(root, "detector@line")
    model = Model.load(root / "data/detector/line/llbnad.safetensors")
    assert model.encoder.view == "tiles" and model.region is not None and model.region.mask is not None
    assert 0.4 < model.region.mask.mean() < 0.6 and model.pixel_threshold is not None

    Image.fromarray(255 - mask).save(root / "mask.png")
    done = command(root, ["dvc", "repro", "--force", "--single-item", "detector@line"])
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "mask.png, has changed since stage settings ran" in said
    assert "dvc repro --force --single-item settings@line" in said
    settings = yaml.safe_load((root / "data/settings/line/read_by/detector.json").read_text())
    assert settings["region"]["mask"] == "mask.png" and len(settings["region"]["mask_sha256"]) == 64
