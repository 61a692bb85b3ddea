"""The definitions load, and their graph is dvc.yaml's."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from llbnad.config import load_params
from orchestration import dvc
from orchestration.definitions import definitions
from orchestration.partitions import all_stages, chain, patterns, sync
from orchestration.paths import BENCHMARK_STAGES, STAGES
from tests.conftest import REPOSITORY

# Dagster's alone: they look into inboxes, the registry and folders, and write none of DVC's outputs.
SIDE_EFFECTS = {"ingest", "drift", "challenger", "champion", "predictions", "exported"}


@pytest.fixture(scope="module")
def assets():
    return definitions(REPOSITORY).resolve_asset_graph()


def scenarios():
    return list(load_params(REPOSITORY / "params.yaml").scenarios)


def test_graph_of_assets_is_the_graph_of_dvc(assets):
    graph = dvc.stage_graph(REPOSITORY)
    assert set(graph) == {stage for name in scenarios() for stage in chain(graph, name).stages.values()}
    for scenario in scenarios():
        one = chain(graph, scenario)
        for asset, stage in one.stages.items():
            node = assets.get(dg.AssetKey(asset))
            # what depends on no stage depends on the ingest, which is Dagster's alone
            assert {key.to_user_string() for key in node.parent_keys} == set(one.upstream[asset] or {"ingest"})
            assert {one.stages[name] for name in one.upstream[asset]} == graph[stage]


def test_assets_have_the_names_partitions_and_descriptions_of_dvc_yaml(assets):
    names = {key.to_user_string() for key in assets.get_all_asset_keys()}
    subsets = load_params(REPOSITORY / "params.yaml").subsets
    generated = {*STAGES, *(f"sub_model_{k}" for k in subsets)} - {"sub_model"}
    assert names == generated | SIDE_EFFECTS | {"benchmark_purification"}
    for name in generated | {"ingest"}:
        node = assets.get(dg.AssetKey(name))
        assert node.partitions_def.name == "scenario"
        assert node.description and "${" not in node.description
        assert node.group_name in {"data", "stage_1", "stage_2"}
        assert "dvc" in node.kinds


def test_a_stage_is_found_by_name_for_every_scenario():
    """Assets are made from the first scenario's chain; the others, and those to come, differ from it in names only."""
    params, graph = load_params(REPOSITORY / "params.yaml"), dvc.stage_graph(REPOSITORY)
    found = patterns(REPOSITORY, params)
    for name, scenario in params.scenarios.items():
        named = {asset: one.stage(name, scenario.dataset) for asset, one in found.items()}
        assert named == chain(graph, name).stages
    assert all_stages(found, params) == set(graph)


def test_partitions_follow_params():
    with dg.instance_for_test() as instance:
        sync(instance, ["a", "b", "new", "b"])
        assert set(instance.get_dynamic_partitions("scenario")) == {"a", "b", "new"}
        sync(instance, ["b", "c"])
        assert set(instance.get_dynamic_partitions("scenario")) == {"b", "c"}


def test_selection_strings_work():
    """They do not where DVC's antlr4 4.9 is installed beside Dagster."""
    selected = dg.AssetSelection.from_string("sub_model_0+").resolve(definitions(REPOSITORY).resolve_asset_graph())
    assert {key.to_user_string() for key in selected} >= {"sub_model_0", "scores"}
    assert dg.AssetSelection.from_string("*") is not None


def test_the_code_location_loads_no_heavy_library():
    code = (
        "import sys, orchestration.definitions\n"
        "print([name for name in ('torch', 'timm', 'mlflow', 'great_expectations') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_dagster_accepts_the_code_location():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dagster"), "definitions", "validate"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_mlflow_from_the_root_is_the_library():
    code = "import mlflow; print(mlflow.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "site-packages" in done.stdout
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()


# Code that decides no byte of any stage's outputs, or whose say is followed in another way; not looked into further.
DECIDED_ELSEWHERE = {
    "llbnad.config": "settings are each stage's params",
    "llbnad.errors": "messages",
    "llbnad.offline": "whether weights may be downloaded, not which",
    "llbnad.prefetch": "when files are read, not what is in them",
    "llbnad.progress": "progress",
    "llbnad.runtime": "threads, device, allocator: how, not what",
    "llbnad.working_memory": "how much at once",
    "llbnad.registry": "finds a class by its name",
    "llbnad.features": "a cache with an address of its own, which stands in the index the features stage writes",
    "llbnad.encoders": "named by their fingerprint in the same index",
    "orchestration.dvc": "runs dvc",
    "orchestration.mlflow_runs": "a side effect",
    "orchestration.paths": "where outputs lie is said by `outs`",
    "orchestration.settings": "reads what stage `settings` wrote, which each stage follows",
    "orchestration.stages.common": "errors, clean-up; what it decides for raw is declared there",
    "orchestration.tracking": "a side effect",
}
# Imported, but what the stage uses of it decides nothing.
UNUSED = {
    "raw": {"llbnad.contaminate": "validation counts with it, in a suite of another stage"},
    "sub_model": {
        "llbnad.manifest": "reads a table; fitting and scoring do not depend on its order",
        "llbnad.threshold": "sub-models have none",
    },
    "scores": {
        "llbnad.manifest": "reads a table; consensus does not depend on its order",
        "llbnad.model": "a type; the maps were made by stage sub_model",
        "llbnad.detectors": "a type",
    },
    "purified": {
        "llbnad.contaminate": "validation counts with it, in a suite of another stage",
        "llbnad.comparators": "a name",
        "llbnad.evaluate": "a type",
        "llbnad.metrics": "draws curves, of another stage",
        "llbnad.threshold": "sub-models have none",
        "llbnad.drift": "a type; draws another report",
    },
    "evaluation": {
        "llbnad.comparators": "a name; the training sets are read from a file",
        "llbnad.drift": "a type; draws another report",
        "llbnad.partition": "seeds of training, which is over",
        "llbnad.purify": "a type",
    },
}


def modules_of(name: str) -> set[str]:
    """Modules of ours that the module `name` imports, lazily or not; a package's modules count as the package."""
    path = REPOSITORY / name.replace(".", "/")
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            package, *inner = node.module.split(".")
            names = [node.module] if inner else [f"{package}.{alias.name}" for alias in node.names]
            if package == "llbnad":
                found |= {".".join(one.split(".")[:2]) for one in names}
            elif package == "orchestration":
                found |= set(names)
    return found - {name}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_calls(stage):
    """All code of ours that a stage imports, directly or not, is a dependency in dvc.yaml: an edit reruns it."""
    declared = declared_code(dvc.templates(REPOSITORY)[stage])
    assert f"orchestration.stages.{stage}" in declared
    assert_covers(declared, f"orchestration.stages.{stage}", UNUSED.get(stage, {}))


def test_the_table_depends_on_the_code_it_calls():
    table = dvc.templates(REPOSITORY, BENCHMARK_STAGES)["purification"]
    chosen = {"llbnad.policies"}  # by name, through the registry
    unused = {
        "llbnad.files": "how a table is written",
        "llbnad.threshold": "its models have none",
        "llbnad.verdicts": "nobody judges its images",
    }
    assert_covers(declared_code(table) - chosen, "orchestration.benchmark", unused)


def declared_code(template):
    return {Path(dep).with_suffix("").as_posix().replace("/", ".") for dep in template.code}


def assert_covers(declared, start, unused):
    excepted = (DECIDED_ELSEWHERE | unused).keys() - declared
    reached, waiting = set(), {start}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        if name not in excepted:
            waiting |= modules_of(name) - reached
    assert reached - excepted == declared & reached, sorted(reached - excepted - declared)
    assert set(unused) <= reached - declared, "an exception nobody needs"


def test_declared_code_exists_and_orchestration_holds_no_algorithm():
    for template in dvc.templates(REPOSITORY).values():
        for dep in template.code:
            assert (REPOSITORY / dep).exists(), dep
    for file in (REPOSITORY / "orchestration").rglob("*.py"):
        assert not re.search(r"^\s*(import torch|from torch)", file.read_text(), re.MULTILINE), file


def test_every_parameter_of_a_scenario_is_followed_by_some_stage():
    text = (REPOSITORY / "dvc.yaml").read_text()
    stages = yaml.safe_load(text)["stages"].values()
    files = [entry for stage in stages for entry in stage.get("do", stage)["params"] if isinstance(entry, dict)]
    followed = {key for file in files for keys in file.values() for key in keys}
    assert {path for file in files for path in file} == {
        "data/settings/${key}/settings.json", "data/settings/${item.scenario}/settings.json"
    }  # fmt: skip
    scenario = next(iter(yaml.safe_load((REPOSITORY / "params.yaml").read_text())["scenarios"].values()))
    assert "${item.review}" in text  # a file: its content is followed
    assert followed == scenario.keys() - {"review"} | {"subsets"}
