"""A scenario's settings as its stages read them: data/settings/<scenario>/settings.json, which stage `settings` writes.

DVC looks at parameters when a stage has ended. A stage that read params.yaml itself would be recorded with whatever
somebody wrote there while it ran; this file stays as it is until `settings` runs again. It is also read in no time,
where DVC would parse the whole of params.yaml once per stage.
"""

import json
from pathlib import Path
from typing import Any

from llbnad.config import parse
from llbnad.errors import DataError
from llbnad.scenario import Scenario
from llbnad.utils.files import write_json
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS, stage_dir

STAGE = "settings"


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
    """
    path, params = settings_path(scenario), load_params(PARAMS)
    if not path.exists():
        params.scenario(scenario)  # a wrong name is said so
        raise DataError(f"no outputs of scenario {scenario} ({path} is missing): run `dvc repro` first")
    content = json.loads(path.read_text())
    subsets = tuple(content.pop("subsets"))
    own: Scenario = parse(Scenario, content, str(path))
    return params.model_copy(update={"subsets": subsets, "scenarios": {**params.scenarios, scenario: own}})


def are_current(root: Path, scenario: str, params: Params) -> bool:
    """Whether the file says what params.yaml says."""
    path = root / settings_path(scenario)
    return path.exists() and bool(json.loads(path.read_text()) == _content(params, scenario))


def settings_path(scenario: str) -> Path:
    """The file, relative to the repository's root."""
    return stage_dir(STAGE, scenario) / "settings.json"


def _content(params: Params, scenario: str) -> dict[str, Any]:
    return {"subsets": list(params.subsets), **params.scenario(scenario).model_dump(mode="json")}
