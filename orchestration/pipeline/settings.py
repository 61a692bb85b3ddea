"""A scenario's settings as its stages read them, and their way there from params.yaml.

Stage `params` splits params.yaml into data/params/<scenario>.json. Stage `settings` copies a scenario's file to
data/settings/<scenario>/settings.json, and writes the settings that each stage reads into a file that the stage
depends on. DVC looks at dependencies and parameters when a stage has ended. If a stage read params.yaml itself, an edit
made while it ran would be recorded as its settings. The copy stays the same: DVC does not run `settings` beside a stage
that depends on it. For the same reason one stage could not copy for all scenarios: it would wait for every stage.

The code of a detector, an encoder or a policy that is not built in is outside the listings
(`orchestration.pipeline.code`). The setting that names such a class holds the version of its code, under the key
PLUGIN_VERSION. Stages depend on the setting, and so on the version. Stage `settings` does not check that code again if
nothing else changed. A stage that finds other code than its settings name refuses to run and says what to do.

The mask of a region is followed in the same way: its setting holds the digest of the file, under the key MASK_DIGEST.
"""

import json
from pathlib import Path
from typing import Any

from llbnad.config import parse
from llbnad.errors import DataError
from llbnad.scenario import Scenario, plugin_modules
from llbnad.utils.files import file_digest
from llbnad.utils.plugins import code_version
from orchestration.pipeline.code import ChangedError
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import DATA, PARAMS, stage_dir

SPLIT, STAGE = "params", "settings"
SUB_MODELS = "sub_models"  # key of params.yaml that the stages of all scenarios follow
MASK_DIGEST = "mask_sha256"  # key beside a region's mask
PLUGIN_VERSION = "plugin_version"  # key beside a setting's own keys, only for classes that are not built in


def entry(params: Params, scenario: str) -> dict[str, Any]:
    """Return what stage `params` writes for a scenario: its settings, and the stages of its sub-models.

    Raises:
        ConfigError: there is no such scenario.
    """
    return {SUB_MODELS: list(params.sub_models), **params.scenario(scenario).model_dump(mode="json")}


def read_entry(scenario: str) -> dict[str, Any]:
    """Return what stage `params` wrote for a scenario.

    Raises:
        ConfigError: params.yaml is wrong or has no such scenario.
        DataError: stage `params` has not run since the scenario was added.
    """
    path = entry_path(scenario)
    if not path.exists():
        load_params(PARAMS).scenario(scenario)  # raises a better error if the name is wrong
        raise DataError(f"{path} is missing: run `dvc repro params` first")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def with_versions(content: dict[str, Any]) -> dict[str, Any]:
    """Add the version of its code to each setting of an entry that names a class that is not built in."""
    versions = plugin_versions(_scenario(content, str(PARAMS)))
    if mask := (content.get("region") or {}).get("mask"):
        content = content | {"region": {**content["region"], MASK_DIGEST: _digest(mask)}}
    return content | {key: {**content[key], PLUGIN_VERSION: version} for key, version in versions.items()}


def read_settings(scenario: str) -> Params:
    """Return params.yaml with `scenario` and the stages of its sub-models as they were when stage `settings` ran.

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
    stages = tuple(content[SUB_MODELS])
    recorded = {key: value.pop(PLUGIN_VERSION, "") for key, value in content.items() if isinstance(value, dict)}
    seen = (content.get("region") or {}).pop(MASK_DIGEST, "")
    own = _scenario(content, str(path))
    if own.region is not None and own.region.mask is not None and _digest(own.region.mask) != seen:
        raise ChangedError(
            f"region.mask of {scenario}, {own.region.mask}, has changed since stage {STAGE} ran: "
            f"run `dvc repro --force --single-item {STAGE}@{scenario}`, then `dvc repro`"
        )
    for key, version in plugin_versions(own).items():
        if recorded.get(key) != version:
            raise ChangedError(
                f"the code of {scenario}'s {key} is {version}, but {path} names {recorded.get(key) or 'no version'}: "
                f"run `dvc repro --force --single-item {STAGE}@{scenario}`, then `dvc repro`"
            )
    return params.model_copy(update={SUB_MODELS: stages, "scenarios": {**params.scenarios, scenario: own}})


def are_current(root: Path, scenario: str, params: Params) -> bool:
    """Return whether the scenario's file of settings equals its settings in params.yaml."""
    return holds(root / settings_path(scenario), with_versions(entry(params, scenario)))


def entry_is_current(root: Path, scenario: str, params: Params) -> bool:
    """Return whether the scenario's file from stage `params` equals its entry in params.yaml."""
    return holds(root / entry_path(scenario), entry(params, scenario))


def plugin_versions(scenario: Scenario) -> dict[str, str]:
    """Return the version of the code of each class that is not built in, by the setting that names the class."""
    modules = {key: plugin_modules(value) for key, value in vars(scenario).items()}
    return {key: ", ".join(map(code_version, sorted(found))) for key, found in modules.items() if found}


def _digest(mask: str) -> str:
    """Return the SHA-256 of a region's mask, or an empty text where it is missing: `RegionOfInterest.read` says so."""
    return file_digest(Path(mask)) if Path(mask).is_file() else ""


def entry_path(scenario: str) -> Path:
    """Return the scenario's file from stage `params`, relative to the repository's root."""
    return DATA / SPLIT / f"{scenario}.json"


def settings_path(scenario: str) -> Path:
    """Return the scenario's file of settings, relative to the repository's root."""
    return stage_dir(STAGE, scenario) / "settings.json"


def holds(path: Path, content: dict[str, Any]) -> bool:
    """Return whether a JSON file exists and has this content."""
    return path.exists() and bool(json.loads(path.read_text()) == content)


def _scenario(content: dict[str, Any], source: str) -> Scenario:
    own: Scenario = parse(Scenario, {key: value for key, value in content.items() if key != SUB_MODELS}, source)
    return own
