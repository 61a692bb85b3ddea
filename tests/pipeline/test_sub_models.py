"""Stages hold the sub-models that are dealt to them, and nothing of a result depends on which stage holds which."""

import json

import pandas as pd
import pytest

from llbnad.model.scores import Scores
from orchestration.pipeline.paths import sub_models_of
from tests.pipeline.conftest import commit, repro


def held(root):
    home = root / "data" / "sub_model" / "noisy20"
    models = sorted(path.parent.relative_to(home).as_posix() for path in home.rglob("model.safetensors"))
    told = {path.parent.name: json.loads(path.read_text())["sub_models"] for path in home.glob("*/sub_models.json")}
    return models, told


def test_a_stage_holds_every_s_th_sub_model(by_dvc):
    assert held(by_dvc) == (["0/0", "0/2", "1/1"], {"0": [0, 2], "1": [1]})
    table = pd.read_parquet(by_dvc / "data/scores/noisy20/scores.parquet").set_index("image_id")
    assert set(table["subset"]) == {0, 1, 2}
    for number in range(3):
        own = Scores.read(by_dvc / f"data/sub_model/noisy20/{number % 2}/{number}/scores.parquet").series()
        assert table[f"sub_model_{number}"].sort_index().tolist() == own.sort_index().tolist()


def test_more_stages_than_sub_models_give_the_same_scores(copy_of):
    before = (copy_of / "data/scores/noisy20/scores.parquet").read_bytes()
    path = copy_of / "params.yaml"
    path.write_text(path.read_text().replace("sub_models:\n- 0\n- 1\n", "sub_models: [0, 1, 2, 3]\n"))
    commit(copy_of, "more stages")
    repro(copy_of, "scores@noisy20")
    assert held(copy_of) == (["0/0", "1/1", "2/2"], {"0": [0], "1": [1], "2": [2], "3": []})
    assert (copy_of / "data/scores/noisy20/scores.parquet").read_bytes() == before


@pytest.mark.parametrize(("stages", "sub_models"), [(1, 5), (2, 5), (5, 10), (5, 3)])
def test_every_sub_model_is_held_once(stages, sub_models):
    held = [number for stage in range(stages) for number in sub_models_of(stage, stages, sub_models)]
    assert sorted(held) == list(range(sub_models))
