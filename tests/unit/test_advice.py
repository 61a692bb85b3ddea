"""The library says what is wrong; the pipeline adds what to do about it."""

import sys

import pytest

from llbnad import errors
from llbnad.errors import DataError, ImageChangedError, SubModelsError
from orchestration.pipeline.advice import ADVICE, with_advice
from orchestration.pipeline.stage import run_stage


def test_what_is_stale_is_made_again_by_dvc():
    said = with_advice(SubModelsError("sub-model 1 missed an image"))
    assert said == "sub-model 1 missed an image. In the pipeline: `dvc repro sub_model` trains and scores again"
    assert with_advice(DataError("a.png is empty")) == "a.png is empty"


def test_every_error_about_what_is_gone_or_stale_has_advice():
    named = {
        kind for name, kind in vars(errors).items() if name.endswith(("GoneError", "ChangedError", "MissingError"))
    }
    assert named <= set(ADVICE) and len(named) >= 4


def test_a_stage_prints_the_advice_and_ends_with_code_2(monkeypatch, capsys):
    def stage() -> None:
        raise ImageChangedError("a.png has other bytes")

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(SystemExit) as ended:
        run_stage(stage)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: a.png has other bytes. In the pipeline: `dvc checkout` restores")
