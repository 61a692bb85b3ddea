"""A scenario's settings as its stages read them: data/settings/<scenario>/settings.json, which stage `settings` writes.

DVC reads parameters when a stage has ended. If a stage read params.yaml itself, an edit made while it ran would be
recorded as its settings. The file settings.json stays the same until `settings` runs again. It is also faster to read:
DVC would parse the whole params.yaml once per stage.

The code of a detector, an encoder or a policy that is not built in is outside the listings
(`orchestration.pipeline.code`). The setting that names such a class holds the version of its code, under the key
PLUGIN_VERSION. Stages depend on the setting, and so on the version. Stage `settings` does not check that code again if
nothing else changed. A stage that finds other code than its settings name refuses to run and says what to do.
"""

import json
from pathlib import Path
from typing import Any

from llbnad.config import parse
from llbnad.errors import DataError
from llbnad.scenario import Scenario, plugin_modules
from llbnad.utils.files import write_json
from llbnad.utils.plugins import code_version
from orchestration.pipeline.code import ChangedError
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS, stage_dir

STAGE = "settings"
PLUGIN_VERSION = "plugin_version"  # key beside a setting's own keys, only for classes that are not built in


def write_settings(scenario: str) -> Path:
    """Write the settings of `scenario` in params.yaml to its own file, and return the file.

    Raises:
        ConfigError: params.yaml is wrong or has no such scenario.
    """
    path = settings_path(scenario)
    write_json(_content(load_params(PARAMS), scenario), path)
    return path


def read_settings(scenario: str) -> Params:
    """Return params.yaml with `scenario` and the subsets as they were when stage `settings` ran.

    Raises:
        ConfigError: params.yaml is wrong.
        DataError: stage `settings` has not run.
        ChangedError: the code of a class that is not built in has changed since stage `settings` ran.
    """
    path, params = settings_path(scenario), load_params(PARAMS)
    if not path.exists():
        params.scenario(scenario)  # raises a better error if the name is wrong
        raise DataError(f"no outputs of scenario {scenario} ({path} is missing): run `dvc repro` first")
    content = json.loads(path.read_text())
    subsets = tuple(content.pop("subsets"))
    recorded = {key: value.pop(PLUGIN_VERSION, "") for key, value in content.items() if isinstance(value, dict)}
    own: Scenario = parse(Scenario, content, str(path))
    for key, version in plugin_versions(own).items():
        if recorded.get(key) != version:
            raise ChangedError(
                f"the code of {scenario}'s {key} is {version}, but {path} names {recorded.get(key) or 'no version'}: "
                f"run `dvc repro --force --single-item {STAGE}@{scenario}`, then `dvc repro`"
            )
    return params.model_copy(update={"subsets": subsets, "scenarios": {**params.scenarios, scenario: own}})


def are_current(root: Path, scenario: str, params: Params) -> bool:
    """Return whether the scenario's file of settings equals its settings in params.yaml."""
    path = root / settings_path(scenario)
    return path.exists() and bool(json.loads(path.read_text()) == _content(params, scenario))


def plugin_versions(scenario: Scenario) -> dict[str, str]:
    """Return the version of the code of each class that is not built in, by the setting that names the class."""
    modules = {key: plugin_modules(value) for key, value in vars(scenario).items()}
    return {key: ", ".join(map(code_version, sorted(found))) for key, found in modules.items() if found}


def settings_path(scenario: str) -> Path:
    """Return the scenario's file of settings, relative to the repository's root."""
    return stage_dir(STAGE, scenario) / "settings.json"


def _content(params: Params, scenario: str) -> dict[str, Any]:
    own = params.scenario(scenario)
    content: dict[str, Any] = {"subsets": list(params.subsets), **own.model_dump(mode="json")}
    for key, version in plugin_versions(own).items():
        content[key][PLUGIN_VERSION] = version
    return content
