"""The rooms of the house: which package imports which. Lazy imports and imports for type checkers count as well."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("llbnad", "orchestration")
ORCHESTRATORS = {"dagster", "dvc", "mlflow", "great_expectations"}


def module_files() -> dict[str, Path]:
    files = [file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py")]
    return {name_of(file): file for file in files}


def name_of(file: Path) -> str:
    parts = file.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path) -> set[str]:
    """All that a module imports, as `package.module` or `package.module.name`."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def import_graph() -> dict[str, set[str]]:
    files = module_files()
    graph = {}
    for name, file in files.items():
        modules = {one if one in files else one.rpartition(".")[0] for one in imported(file)}
        graph[name] = (modules & files.keys()) - {name}
    return graph


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_modules_form_no_import_cycle():
    try:
        list(TopologicalSorter(import_graph()).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {error.args[1]}")


def test_packages_form_no_import_cycle():
    rooms = defaultdict(set)
    for module, others in import_graph().items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    try:
        list(TopologicalSorter(rooms).static_order())
    except CycleError as error:
        pytest.fail(f"rooms import each other in a circle: {error.args[1]}")


def test_the_method_imports_no_orchestration():
    for name, file in module_files().items():
        if name.startswith("llbnad"):
            found = {one.split(".")[0] for one in imported(file)}
            assert not found & (ORCHESTRATORS | {"orchestration"}), file


def test_orchestration_computes_nothing_with_torch():
    for name, file in module_files().items():
        if name.startswith("orchestration"):
            assert "torch" not in {one.split(".")[0] for one in imported(file)}, file


def test_config_is_a_leaf():
    assert import_graph()["llbnad.config"] == {"llbnad.errors"}


def test_few_modules_stand_at_the_roots():
    assert len(list((REPOSITORY / "llbnad").glob("*.py"))) <= 8
    assert len(list((REPOSITORY / "orchestration").glob("*.py"))) <= 3


def test_no_two_classes_share_a_name():
    places = defaultdict(list)
    for module, file in module_files().items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_importing_a_package_runs_no_other_module_of_ours():
    """Code digests follow imports by name; a package's own `__init__` must bring nothing else along unseen."""
    files = module_files()
    registries = {"llbnad.config", "llbnad.errors", "llbnad.utils.registry"}
    for name, file in files.items():
        if file.name == "__init__.py" and name != "llbnad.data.sources":
            top = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
            ours = {node.module for node in top if node.module and node.module.split(".")[0] in PACKAGES}
            assert ours <= registries, file


def test_mlflow_folder_does_not_shadow_the_library():
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()
