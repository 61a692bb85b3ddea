"""The definitions load, and their graph is dvc.yaml's."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.assets.partitions import all_stages, chain, patterns, sync
from orchestration.definitions import definitions
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import STAGES
from orchestration.pipeline.stage_settings import READ_BY
from tests.conftest import REPOSITORY

# Dagster's alone: they look into inboxes, the registry and folders, and write none of DVC's outputs.
SIDE_EFFECTS = {"ingest", "drift", "challenger", "champion", "predictions", "exported", "inspected"}


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
            before = set(one.upstream[asset])
            if before <= {"code"}:  # what depends on no other stage waits for the ingest, which makes the scenario
                before |= {"ingest"}
            assert {key.to_user_string() for key in node.parent_keys} == before | {f"changes/{asset}_changes"}
            assert {one.stages[name] for name in one.upstream[asset]} == graph[stage]


def test_assets_have_the_names_partitions_and_descriptions_of_dvc_yaml(assets):
    names = {key.to_user_string() for key in assets.get_all_asset_keys()}
    stages = load_params(REPOSITORY / "params.yaml").sub_models
    generated = {"code", "params", *STAGES, *(f"sub_model_{k}" for k in stages)} - {"sub_model"}
    changes = {f"changes/{name}_changes" for name in generated}
    assert names == generated | changes | SIDE_EFFECTS | {"benchmark_purification"}
    for name in generated | {"ingest"}:
        node = assets.get(dg.AssetKey(name))
        assert node.partitions_def.name == "scenario"
        assert node.description and "${" not in node.description
        assert node.group_name in {"data", "stage_1_purify", "stage_2_detect"}
        assert "dvc" in node.kinds


def test_a_stage_is_found_by_name_for_every_scenario():
    """Assets are made from the first scenario's chain; the others, and those to come, differ from it in names only."""
    params, graph = load_params(REPOSITORY / "params.yaml"), dvc.stage_graph(REPOSITORY)
    found = patterns(REPOSITORY, params)
    for name, scenario in params.scenarios.items():
        named = {asset: one.stage(name, scenario.dataset) for asset, one in found.items()}
        assert named == chain(graph, name).stages
    assert all_stages(found, params) == set(graph)


def test_a_command_has_no_placeholder_of_dvc():
    specs = {
        spec.key.to_user_string(): spec.metadata.get("command", "")
        for spec in definitions(REPOSITORY).resolve_all_asset_specs()
    }
    assert not [command for command in specs.values() if "$" in command]
    assert specs["raw"] == "python -m orchestration.stages.raw DATASET"
    assert specs["sub_model_3"] == "python -m orchestration.stages.sub_model SCENARIO 3"


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


def test_the_code_location_loads_no_heavy_library(cold_programs):
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


def test_mlflow_from_the_root_is_the_library(cold_programs):
    code = "import importlib.util; print(importlib.util.find_spec('mlflow').origin)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert "site-packages" in done.stdout


def test_every_setting_of_a_scenario_is_followed_by_some_stage():
    text = (REPOSITORY / "dvc.yaml").read_text()
    stages = {name: stage.get("do", stage) for name, stage in yaml.safe_load(text)["stages"].items()}
    followed = {name: dep for name, stage in stages.items() for dep in stage["deps"] if "/read_by/" in dep}
    assert followed == {
        name: f"data/settings/{'${item.scenario}' if name == 'sub_model' else '${key}'}/read_by/{name}.json"
        for name in READ_BY
    }
    assert {name for name, stage in stages.items() if "params" in stage} == {"raw"}
    assert {name for name, stage in stages.items() if "params.yaml" in stage["deps"]} == {"params"}
    scenario = next(iter(yaml.safe_load((REPOSITORY / "params.yaml").read_text())["scenarios"].values()))
    assert "${item.review}" in text  # a file: its content is followed
    assert {key for keys in READ_BY.values() for key in keys} == scenario.keys() - {"review"} | {"sub_models", "region"}
