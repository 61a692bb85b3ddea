"""The campaign of kills itself: it finds what a kill leaves behind, and sees no difference where there is none."""

import random

import pytest
import yaml

from llbnad.utils.files import file_digest
from tests.campaign.chain import run_chain, timed
from tests.campaign.kinds import KINDS, Kind, build
from tests.campaign.outputs import CACHE, difference, outputs

SLEEPY = """
import pathlib, sys, time
target = pathlib.Path("data/result.txt")
{guard}
target.parent.mkdir(exist_ok=True)
target.write_text("half")
if not pathlib.Path("data/second").exists():
    pathlib.Path("data/second").touch()
    time.sleep(60)
target.write_text("whole")
"""


def lay_out(folder, stages):
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "scores.csv").write_text("1")
    (folder / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (folder / "params.yaml").write_text("")
    digest = file_digest(folder / "data" / "scores.csv", "md5")
    kept = folder / CACHE / digest[:2] / digest[2:]
    kept.parent.mkdir(parents=True)
    kept.write_text("1")
    return kept


def test_only_what_differs_is_a_difference(tmp_path):
    lay_out(tmp_path / "one", {"a": 1, "b": 2})
    kept = lay_out(tmp_path / "two", {"b": 2, "a": 1})
    (tmp_path / "two" / "data" / ".scores.csv.00000000.7.tmp").write_text("left by a kill")
    wanted = outputs(tmp_path / "one")
    assert difference(wanted, outputs(tmp_path / "two")) == ""
    kept.write_text("2")
    assert difference(wanted, outputs(tmp_path / "two")).endswith(f"{kept.name} is damaged")
    kept.unlink()
    (tmp_path / "two" / "data" / "scores.csv").write_text("3")
    (tmp_path / "two" / "data" / "more.csv").write_text("3")
    (tmp_path / "two" / "dvc.lock").unlink()
    found = difference(wanted, outputs(tmp_path / "two"))
    assert "is missing; data/more.csv is too many; data/scores.csv differs; and 1 more" in found


@pytest.mark.parametrize(
    ("guard", "message"),
    [
        ("", ""),
        ("target.exists() and sys.exit(0)", "data/result.txt differs"),
        ("target.exists() and sys.exit('no way')", "exit code 1: no way"),
    ],
    ids=["mends itself", "trusts a half", "needs a hand"],
)
def test_what_a_kill_leaves_is_found(tmp_path, guard, message):
    for name in ("wanted", "work"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "params.yaml").write_text("")
    (tmp_path / "wanted/data/result.txt").write_text("whole")
    (tmp_path / "wanted/data/second").touch()
    kind = Kind(("python", "-c", SLEEPY.format(guard=guard)))
    draw = random.Random(3)
    kills = run_chain(tmp_path / "work", kind, outputs(tmp_path / "wanted"), 2.5, draw, most=1)
    assert [(kill.held, kill.message) for kill in kills] == [(not message, message)]


def test_an_ingest_that_is_killed_goes_on(tmp_path):
    build(KINDS["ingest"], tmp_path / "whole")
    build(KINDS["ingest"], tmp_path / "work")
    seconds = timed(tmp_path / "whole", KINDS["ingest"])
    kills = run_chain(tmp_path / "work", KINDS["ingest"], outputs(tmp_path / "whole"), seconds, random.Random(5), 2)
    assert kills and all(kill.held for kill in kills), kills
