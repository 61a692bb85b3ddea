"""Code as a dependency: a listing per stage, computed from imports; an edit reruns the stages that reach it."""

import re
from pathlib import Path

import pytest
import yaml

from orchestration.pipeline import code, dvc
from orchestration.pipeline.import_graph import PACKAGES, ImportGraph
from orchestration.pipeline.paths import BENCHMARK_STAGES, STAGES
from tests.conftest import REPOSITORY
from tests.pipeline.conftest import command, repro


@pytest.fixture(scope="module")
def listings():
    return code.listings(REPOSITORY)


def stages_that_reach(listings, path):
    return {entry for entry, listing in listings.items() if path in listing}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("llbnad/data/contaminate.py", {"raw", "noisy", "purified", "benchmark"}),  # validation counts with it
        ("llbnad/policies/mixture.py", {"purified", "evaluation", "benchmark"}),
        ("llbnad/policies/adaptive.py", {"purified", "evaluation", "benchmark"}),
        ("llbnad/detectors/dfr.py", {"sub_model", "scores", "purified", "detector", "evaluation", "benchmark"}),
        # a young line is measured by its threshold, and evaluation draws on a fold of the calibration
        ("llbnad/model/calibrate.py", {"detector", "evaluation", "benchmark"}),
        ("llbnad/sensitivity/defects.py", {"evaluation", "benchmark"}),
        ("llbnad/study/table.py", {"benchmark"}),
        ("llbnad/purification/rounds.py", {"purified", "benchmark"}),
        ("llbnad/purification/sub_models.py", {"sub_model", "purified", "benchmark"}),
        ("orchestration/stages/scores.py", {"scores"}),
        ("llbnad/utils/files.py", {"params", *STAGES, "benchmark"}),
        # decide no byte: records, settings (each stage depends on a file with its own), other rooms
        ("orchestration/tracking/mlflow_runs.py", set()),
        # these two read settings as people wrote them, and a missing key has its value from there
        ("llbnad/config.py", {"raw", "benchmark"}),
        ("llbnad/scenario.py", {"benchmark"}),
        ("orchestration/pipeline/params.py", set()),
        ("llbnad/monitoring/drift.py", set()),
        ("orchestration/assets/dvc_assets.py", set()),
    ],
)
def test_a_module_belongs_to_the_stages_that_reach_it(listings, path, expected):
    assert (REPOSITORY / path).is_file()
    assert stages_that_reach(listings, path) == expected


def test_every_stage_lists_its_own_module_and_depends_on_its_list_alone(listings):
    templates = dvc.templates(REPOSITORY)
    assert set(templates) == {"code", "params", *STAGES}
    assert templates["code"].over == ""
    for stage in STAGES:
        assert f"orchestration/stages/{stage}.py" in listings[stage]
    text = (REPOSITORY / "dvc.yaml").read_text() + (REPOSITORY / BENCHMARK_STAGES).read_text()
    assert len(re.findall(r"^\s+- (llbnad|orchestration)$", text, re.MULTILINE)) == 2  # of stage code
    assert not re.findall(r"^\s+- (llbnad|orchestration)/", text, re.MULTILINE)
    outs = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]["code"]["outs"]
    assert outs == [code.listing_path(entry).as_posix() for entry in code.ENTRIES]


def test_listings_do_not_depend_on_where_the_repository_lies(listings, tmp_path):
    for package in PACKAGES:
        (tmp_path / package).symlink_to(REPOSITORY / package)
    for entry, listing in code.listings(tmp_path).items():
        assert list(listing.items()) == list(listings[entry].items())
        assert list(listing) == sorted(listing, key=Path)


def test_imports_for_type_checkers_and_plain_text_do_not_count(tmp_path):
    package = tmp_path / "llbnad"
    package.mkdir()
    (tmp_path / "orchestration" / "stages").mkdir(parents=True)
    for name in ("typed", "lazy", "named", "mentioned"):
        (package / f"{name}.py").touch()
    (package / "start.py").write_text(
        '"""See llbnad.mentioned."""\n'
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from llbnad.typed import A\n"
        "def f():\n    from llbnad import lazy\n"
        'PLACES = {"x": "llbnad.named:Class"}\n'
    )
    files = [file.as_posix() for file in ImportGraph(tmp_path).closure("llbnad.start")]
    assert files == ["llbnad/lazy.py", "llbnad/named.py", "llbnad/start.py"]


def changed_stages(folder):
    """Stages that `dvc repro` would run for other reasons than what comes before them."""
    repro(folder, "code")
    listed = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    status = yaml.safe_load(command(folder, ["dvc", "status", "--json"]).stdout) or {}
    found = set()
    for stage, changes in status.items():
        deps = {path for change in changes if isinstance(change, dict) for path in change.get("changed deps", {})}
        if any(path.startswith("data/code/") for path in deps):
            found.add(stage.partition("@")[0])
    assert set(status) <= set(listed)
    return found


def test_an_edit_reruns_exactly_the_stages_that_reach_the_module(copy_of):
    runs = copy_of / "orchestration" / "tracking" / "mlflow_runs.py"
    runs.write_text(runs.read_text().replace('"""', '"""\n', 1))
    assert changed_stages(copy_of) == set()

    rounds = copy_of / "llbnad" / "purification" / "rounds.py"
    rounds.write_text(rounds.read_text() + "\n# edited\n")
    assert changed_stages(copy_of) == {"purified"}
    before = (copy_of / "data/purified/noisy20/kept.parquet").read_bytes()
    said = repro(copy_of)
    assert set(re.findall(r"Running stage '(\w+)", said)) == {"purified"}  # same bytes: nothing after it runs
    assert (copy_of / "data/purified/noisy20/kept.parquet").read_bytes() == before


def test_a_stage_refuses_to_run_with_code_that_is_not_listed(copy_of):
    module = copy_of / "llbnad" / "purification" / "aggregate.py"
    module.write_text(module.read_text() + "\n# edited\n")
    done = command(copy_of, ["dvc", "repro", "--single-item", "--force", "scores@noisy20"])
    assert done.returncode != 0
    assert (
        "llbnad/purification/aggregate.py is not the file that data/code/scores.csv lists" in done.stdout + done.stderr
    )
