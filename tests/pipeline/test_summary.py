"""A stage's report on its run reaches the program that started dvc, as data."""

import pytest

from orchestration.pipeline.repro import repro_stage
from orchestration.pipeline.summary import listening, say

SPEAKER = """\
from pathlib import Path
from orchestration.pipeline.summary import say
say("speak: 3 images", {"images encoded": 3})
say("speak: done", {"share": 0.5})
Path("out").write_text("x")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "speak.py").write_text(SPEAKER)
    (tmp_path / "dvc.yaml").write_text("stages: {speak: {cmd: python speak.py, deps: [speak.py], outs: [out]}}")
    return tmp_path


def test_what_a_stage_says_goes_through_dvc(folder):
    lines = []
    with listening() as one:
        assert repro_stage(folder, "speak", lines.append, one.environment) == "ran"
        assert one.heard("speak") == {"summary": "speak: 3 images\nspeak: done", "images encoded": 3, "share": 0.5}
    assert "speak: 3 images" in lines
    with listening() as one:  # a stage that did not run says nothing, and nothing is remembered of the run before
        assert repro_stage(folder, "speak", lines.append, one.environment) == "unchanged"
        assert one.heard("speak") == {}


def test_without_a_listener_a_stage_just_prints(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    say("speak: 3 images", {"images encoded": 3})
    assert capsys.readouterr().out == "speak: 3 images\n"
    assert repro_stage(folder, "speak", lambda line: None) == "ran"
