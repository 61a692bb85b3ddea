"""A scenario's settings as its stages read them: data/settings/<scenario>/settings.json, which stage `settings` writes.

DVC looks at parameters when a stage has ended. A stage that read params.yaml itself would be recorded with whatever
somebody wrote there while it ran; this file stays as it is until `settings` runs again. It is also read in no time,
where DVC would parse the whole of params.yaml once per stage.

A detector, an encoder or a policy that is not built in is code outside the listings (`orchestration.pipeline.code`).
The setting that names it then carries the version of that code, under the key PLUGIN_VERSION: stages follow the
setting, so they follow the version. Stage `settings` itself does not look at that code again when nothing else changed;
a stage that meets other code than its settings name refuses to run and says what to do.
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
PLUGIN_VERSION = "plugin_version"  # beside a setting's own keys; settings of built-in classes have none


def write_settings(scenario: str) -> Path:
    """Copy what params.yaml says of `scenario` today; returns the file.

    Raises:
        ConfigError: params.yaml is wrong or has no such scenario.
    """
    path = settings_path(scenario)
    write_json(_content(load_params(PARAMS), scenario), path)
    return path


def read_settings(scenario: str) -> Params:
    """params.yaml, with `scenario` and the subsets as they were when its stage `settings` ran.

    Raises:
        ConfigError: params.yaml is wrong.
        DataError: the stage has not run.
        ChangedError: a class that is not built in has other code than when it ran.
    """
    path, params = settings_path(scenario), load_params(PARAMS)
    if not path.exists():
        params.scenario(scenario)  # a wrong name is said so
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
    """Whether the file says what params.yaml says."""
    path = root / settings_path(scenario)
    return path.exists() and bool(json.loads(path.read_text()) == _content(params, scenario))


def plugin_versions(scenario: Scenario) -> dict[str, str]:
    """Return the version of the code behind each setting that names a class which is not built in."""
    modules = {key: plugin_modules(value) for key, value in vars(scenario).items()}
    return {key: ", ".join(map(code_version, sorted(found))) for key, found in modules.items() if found}


def settings_path(scenario: str) -> Path:
    """The file, relative to the repository's root."""
    return stage_dir(STAGE, scenario) / "settings.json"


def _content(params: Params, scenario: str) -> dict[str, Any]:
    own = params.scenario(scenario)
    content: dict[str, Any] = {"subsets": list(params.subsets), **own.model_dump(mode="json")}
    for key, version in plugin_versions(own).items():
        content[key][PLUGIN_VERSION] = version
    return content
