"""`python -m orchestration status`: what it says of stages, suspects, champions and inboxes."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from orchestration.__main__ import application
from orchestration.pipeline.params import load_params
from orchestration.pipeline.staleness import StageState, causes, described, in_words, propagated, why_behind
from orchestration.pipeline.suspects import unjudged_suspects
from tests.conftest import REPOSITORY

BLOCK = "  {}:\n    cmd: x\n    deps:\n{}    outs:\n{}"


def block(name, reads, makes):
    return BLOCK.format(name, *("".join(f"    - path: {one}\n" for one in paths) for paths in (reads, makes)))


@pytest.mark.parametrize(
    ("changed", "copies", "stale"),
    [
        ([], {}, set()),
        (["raw@a"], {}, {"raw@a", "noisy@x"}),
        (["noisy@x"], {}, {"noisy@x"}),
        (["code"], {"data/code/noisy.csv": "code: a.py"}, {"code", "noisy@x"}),  # code of one stage, not of the other
        (["code"], {"data/code/params.csv": "code: a.py"}, {"code", "params"}),  # it would write the same again
        (["params"], {"data/params/x.json": "seed of x in params.yaml"}, {"params", "noisy@x"}),
        (["code"], {}, set()),  # an edit of a module that no stage reaches changes no listing
    ],
)
def test_a_change_reaches_what_reads_it(changed, copies, stale):
    blocks = {
        "code": block("code", ["llbnad"], ["data/code/raw.csv", "data/code/noisy.csv", "data/code/params.csv"]),
        "params": block("params", ["data/code/params.csv"], ["data/params"]),
        "raw@a": block("raw@a", ["data/own/a", "data/code/raw.csv"], ["data/raw/a"]),
        "noisy@x": block(
            "noisy@x", ["data/raw/a/manifest.parquet", "data/code/noisy.csv", "data/params/x.json"], ["data/noisy/x"]
        ),
    }
    found = propagated([*blocks, "scores@x"], blocks, {stage: [f"{stage} modified"] for stage in changed}, copies)
    assert {stage for stage, state in found.items() if state.freshness == "stale"} == stale
    assert found["scores@x"] == StageState("never ran")
    assert causes(found.values()) == ([*copies.values()] or [f"{stage} modified" for stage in changed if stale])
    if "raw@a" in changed:
        assert found["noisy@x"].because == ("raw@a is stale",)


def test_states_in_a_few_words():
    fresh, missing = StageState("up to date"), StageState("never ran")
    assert in_words({"raw@a": fresh, "scores@x": fresh}) == "all 2 up to date"
    assert in_words({"raw@a": missing}) == "never ran"
    stale = StageState("stale", ("raw@a is stale", "seed of x in params.yaml"))
    states = {"raw@a": fresh, "sub_model@x-0": stale, "sub_model@x-1": stale, "scores@x": missing}
    said = "2 stale and 1 never ran of 4: sub_model, scores"
    assert described(states) == said and in_words(states) == f"{said} (seed of x in params.yaml)"
    assert why_behind(states) == {
        "sub_model@x-0": "raw@a is stale; seed of x in params.yaml",
        "sub_model@x-1": "raw@a is stale; seed of x in params.yaml",
        "scores@x": "never ran",
    }


def test_what_a_fixed_share_leaves_out_is_no_suspect(tmp_path):
    params = load_params(REPOSITORY / "params.yaml")
    (tmp_path / "data/purified/x").mkdir(parents=True)
    pd.DataFrame({"image_id": [letter * 64 for letter in "ab"]}).to_parquet(
        tmp_path / "data/purified/x/rejected.parquet"
    )
    (tmp_path / "judged.csv").write_text(f"image_id,verdict\n{'a' * 64},defect\n")
    first = next(iter(params.scenarios.values())).model_copy(update={"review": "judged.csv"})
    own = params.model_copy(update={"scenarios": {"x": first}})
    for status, said in (("left out", "– (2 left out by the fixed share, which"), ("rejected", "1 not judged, of 2")):
        (tmp_path / "data/purified/x/scores.csv").write_text(f"name,status\na,{status}\nb,{status}\nc,kept\n")
        assert unjudged_suspects(tmp_path, own, "x").startswith(said)  # whatever params.yaml says by now


def test_one_screen(copy_of, monkeypatch):
    monkeypatch.chdir(copy_of)
    purified = copy_of / "data/purified/noisy20"
    shutil.copy(purified / "kept.parquet", purified / "rejected.parquet")  # of these few images, none is rejected
    rejected = pd.read_parquet(purified / "rejected.parquet")["image_id"].tolist()
    (copy_of / "data/review/judged.csv").write_text(f"image_id,verdict\n{rejected[0]},defect\n")
    params = yaml.safe_load((copy_of / "params.yaml").read_text())
    params["scenarios"]["noisy20"]["review"] = "data/review/judged.csv"
    params["scenarios"]["fresh"] = params["scenarios"]["noisy20"]
    (copy_of / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (copy_of / "data/incoming/new_line").mkdir(parents=True)
    shutil.copy(next((copy_of / "data/own/cells/good").iterdir()), copy_of / "data/incoming/new_line/first.png")
    done = CliRunner().invoke(application("status"), ["status", "--json"])
    assert done.exit_code == 0, done.output
    noisy, line, fresh = json.loads(done.stdout)
    assert (noisy["scenario"], line["scenario"], fresh["scenario"]) == ("noisy20", "line", "fresh")
    assert (line["stages"], line["champion"]) == ("all 12 up to date", "–")  # not its entry was edited
    assert noisy["stages"].startswith("5 stale of ")  # params, settings, purified and what follows
    assert noisy["because"]["params"] == "review of noisy20 in params.yaml" and len(noisy["because"]) == 5
    assert noisy["because"]["detector@noisy20"].endswith("purified@noisy20 is stale") and line["because"] == {}
    assert fresh["because"]["evaluation@fresh"] == "never ran"
    assert "never ran" in fresh["stages"] and (fresh["last_run"], fresh["suspects"]) == ("–", "–")
    assert noisy["suspects"] == f"{len(rejected) - 1} not judged, of {len(rejected)} rejected"
    done = CliRunner().invoke(application("status"), ["status", "line"])
    assert done.exit_code == 0 and "noisy20" not in done.stdout
    assert "new_line: a new line with 1 files; `… ingest` takes it in" in done.stdout.replace("\n", " ")
    assert "what `make run` computes" not in done.stdout  # nothing
    done = CliRunner().invoke(application("status"), ["status", "noisy20"])
    shown = [[cell.strip() for cell in row.split("│")[1:3]] for row in done.stdout.splitlines() if "│" in row]
    assert ["params", "review of noisy20 in params.yaml"] in shown
    with pytest.raises(Exception, match="lien"):
        CliRunner().invoke(application("status"), ["status", "lien"], catch_exceptions=False)
