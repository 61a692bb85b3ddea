"""One dvc process goes through many stages and tells of each; several processes do so side by side."""

import pytest

from orchestration.assets.dvc_assets import phases
from orchestration.assets.partitions import Pattern
from orchestration.pipeline.dvc import DvcError, Template
from orchestration.pipeline.repro import StageError, repro_stages
from tests.campaign.chain import processes_in
from tests.pipeline.conftest import wait_for

MEETS = "touch {own}; until [ -e {other} ]; do sleep 0.1; done"  # ends only if the other stage runs beside it
STAGES = {
    "first": "cp in first",
    "second": "echo told; cp first second",
    "here": f"timeout 60 sh -c '{MEETS.format(own='here', other='there')}'",
    "there": f"timeout 60 sh -c '{MEETS.format(own='there', other='here')}'",
    "fails": "echo it cannot; exit 3",
    "refuses": "exit 2",
    "waits": "echo waiting; sleep 600",
}
DEPS = {"first": ["in"], "second": ["first"], "fails": ["in"], "refuses": ["in"], "waits": ["in"]}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "in").write_text("content")
    lines = ["stages:"]
    for name, command in STAGES.items():
        lines += [f"  {name}:", f"    cmd: {command}", f"    deps: {DEPS.get(name, [])}", f"    outs: [{name}]"]
    (tmp_path / "dvc.yaml").write_text("\n".join(lines))
    return tmp_path


def ignore(line: str) -> None:
    pass


def test_a_process_tells_of_each_stage_as_soon_as_it_has_ended(folder):
    lines = []
    events = repro_stages(folder, [["first", "second"]], lines.append)
    assert next(events) == ("first", "ran") and (folder / "first").exists()
    assert list(events) == [("second", "ran")] and (folder / "second").exists()
    assert "told" in lines
    assert list(repro_stages(folder, [["first", "second"]], ignore)) == [
        ("first", "unchanged"),
        ("second", "unchanged"),
    ]
    (folder / "second").unlink()
    assert list(repro_stages(folder, [["second"], ["first"]], ignore)) in (
        [("first", "unchanged"), ("second", "restored from cache")],
        [("second", "restored from cache"), ("first", "unchanged")],
    )


def test_shares_run_side_by_side(folder):
    assert sorted(repro_stages(folder, [["here"], ["there"]], ignore)) == [("here", "ran"), ("there", "ran")]


def test_a_stage_that_fails_ends_its_share_only_and_is_named(folder):
    seen = []
    with pytest.raises(StageError, match=r"stage fails failed:\n[^$]*it cannot") as caught:
        for event in repro_stages(folder, [["fails", "here"], ["first", "second"]], ignore):
            seen.append(event)
    assert caught.value.stage == "fails" and "told" not in str(caught.value) and not caught.value.refused
    assert seen == [("first", "ran"), ("second", "ran")] and not (folder / "here").exists()


def test_a_stage_that_will_fail_again_says_so(folder):
    with pytest.raises(StageError) as caught:
        list(repro_stages(folder, [["first", "refuses"]], ignore))
    assert caught.value.stage == "refuses" and caught.value.refused


@pytest.mark.parametrize("before", [[], ["first"], ["second"]], ids=["alone", "after one that ran", "after another"])
def test_a_stage_that_cannot_begin_is_named(folder, before):
    """DVC says nothing of such a stage but its error."""
    list(repro_stages(folder, [["first"]], ignore))
    text = (folder / "dvc.yaml").read_text()
    (folder / "dvc.yaml").write_text(text.replace("deps: ['in']\n    outs: [fails]", "deps: [gone]\n    outs: [fails]"))
    seen = []
    with pytest.raises(StageError, match="gone") as caught:
        for event in repro_stages(folder, [[*before, "fails"]], ignore):
            seen.append(event)
    assert caught.value.stage == "fails" and [stage for stage, _ in seen] == before


def test_what_is_no_stage_is_an_error(folder):
    with pytest.raises(DvcError, match="'moon'"):
        list(repro_stages(folder, [["moon"]], ignore))


def test_whoever_stops_listening_ends_the_processes(folder, cold_programs):
    events = repro_stages(folder, [["first", "waits"]], ignore)
    assert next(events) == ("first", "ran")
    events.close()
    assert wait_for(lambda: not processes_in(folder.resolve()), 10) and not (folder / "waits").exists()


def test_only_instances_of_one_template_run_side_by_side():
    found = {
        name: Pattern(Template(name.partition("_")[0], "", {}, "", "", "scenarios"), "", frozenset())
        for name in ("raw", "model_0", "model_1", "model_2", "scores", "detector")
    }
    assert phases(list(found), found, 1) == [[list(found)]]
    assert phases(list(found), found, 2) == [
        [["raw"]],
        [["model_0", "model_2"], ["model_1"]],
        [["scores", "detector"]],
    ]
    assert phases(["model_1", "scores"], found, 8) == [[["model_1", "scores"]]]
    assert phases(["model_0", "model_2"], found, 8) == [[["model_0"], ["model_2"]]]
    assert phases([], found, 2) == []
