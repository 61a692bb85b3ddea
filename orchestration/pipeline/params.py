"""The settings classes of params.yaml, typed and frozen.

An unknown key, a missing key or an impossible value is an error before anything runs. The defaults of the classes are
for Python and the `llbnad` command. params.yaml has to hold every key, so that DVC sees all of them. Only `intensity`,
`pages` and `max_pixels` of a data set, view, tiles and overlap of an encoder, `region` and `inspection` may be left
out, because files of earlier releases do not have them.
"""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from llbnad.config import VIEW_KEYS, Config, Dataset, Files, Promotion, RegionConfig, Runtime, parse
from llbnad.errors import ConfigError
from llbnad.scenario import Scenario, ScenarioSettings
from llbnad.utils.yaml_files import read_yaml
from orchestration.pipeline.cron import why_not
from orchestration.pipeline.paths import DATA

SCENARIO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}")  # files are called so
NAME_REASON = "DVC joins names with '-' and splits them at '.'"


class ArrivalSettings(Config):
    """When new production images are taken in and trained on.

    DVC does not follow these settings, because they change no bytes of an output.
    """

    stable_seconds: float = Field(
        10.0, ge=0, le=7 * 86400, allow_inf_nan=False
    )  # seconds after which a file that nobody touched is complete
    min_new_images: int = Field(20, ge=1)  # new images that start a training
    cron: str = "0 2 * * *"  # time (UTC) when lines with enough new images are retrained, whatever the sensor did

    @field_validator("cron")
    @classmethod
    def _possible(cls, cron: str) -> str:
        if reason := why_not(cron):
            raise ValueError(reason)
        return cron


class InspectionSettings(Config):
    """How the images of a line in data/inspect are scored; options of `watch` go before these settings.

    DVC does not follow these settings, because they change no bytes of an output.
    """

    train: bool = False  # copy each scored image to the line's inbox, to be learnt
    webhook: str | None = None  # address that is told each row, signed with the secret LLBNAD_WEBHOOK_SECRET
    fpr: float | None = Field(None, gt=0, lt=1)  # false positives accepted by both thresholds; null: the model's own
    min_area: int | None = Field(None, ge=1)  # fewest pixels of a region; null: what the model was calibrated for
    drift_images: int = Field(200, ge=0)  # scored images after which Dagster measures drift again; 0: it does not


class Params(Config):
    """The whole of params.yaml."""

    datasets: dict[str, Dataset]
    # 0 … S-1, the stages that the T sub-models of a scenario are dealt out to; a stage may hold several, or none
    sub_models: tuple[int, ...]
    defaults: ScenarioSettings
    scenarios: dict[str, Scenario]
    arrival: ArrivalSettings
    runtime: Runtime
    promotion: Promotion
    inspection: dict[str, InspectionSettings] = Field(default_factory=dict)  # by line

    @field_validator("sub_models")
    @classmethod
    def _numbered(cls, sub_models: tuple[int, ...]) -> tuple[int, ...]:
        if not sub_models or list(sub_models) != list(range(len(sub_models))):
            raise ValueError(f"sub_models must count 0, 1, 2 … up to the last stage, got {list(sub_models)}")
        return sub_models

    @model_validator(mode="after")
    def _names(self) -> "Params":
        for name in [*self.scenarios, *self.datasets, *self.inspection]:
            if not SCENARIO_NAME.fullmatch(name):
                raise ValueError(f"the name {name!r} must be letters, digits and '_', at most 100 ({NAME_REASON})")
        for name, dataset in self.datasets.items():
            if reason := why_no_root(dataset.root):
                raise ValueError(f"datasets.{name}.root is {dataset.root!r}, {reason}")
        for name, scenario in self.scenarios.items():
            if scenario.dataset not in self.datasets:
                raise ValueError(f"scenarios.{name}.dataset is {scenario.dataset!r}; known: {sorted(self.datasets)}")
        return self

    def scenario(self, name: str) -> Scenario:
        """Return the scenario called `name`. Raise ConfigError, with a list of all scenarios, if there is none."""
        if name not in self.scenarios:
            raise ConfigError(f"unknown scenario {name!r}; params.yaml has {sorted(self.scenarios)}")
        return self.scenarios[name]

    def inspection_of(self, line: str) -> InspectionSettings:
        """Return how the images of a line are scored; the usual settings if the file does not say."""
        return self.inspection.get(line, InspectionSettings())

    def dataset(self, name: str) -> Dataset:
        """Return the dataset called `name`. Raise ConfigError, with a list of all datasets, if there is none."""
        if name not in self.datasets:
            raise ConfigError(f"unknown dataset {name!r}; params.yaml has {sorted(self.datasets)}")
        return self.datasets[name]


# keys that earlier releases did not have
MAY_BE_MISSING = {
    *Files.model_fields, *VIEW_KEYS["tiles"], "region", "inspection", *InspectionSettings.model_fields,
}  # fmt: skip


def why_no_root(root: str) -> str | None:
    """Return why a folder can be no data set's, or None if it can."""
    if root.startswith("~"):
        return "and `~` is not read: write the whole path"
    place = os.path.normpath(root)
    if place in (".", os.sep, str(DATA)) or set(Path(place).parts) == {".."}:
        return "which holds what the pipeline writes: give the data set a folder of its own, such as data/own/NAME"
    return None


def load_params(path: Path, name: str = "") -> Params:
    """Read and check params.yaml.

    Args:
        path: the file.
        name: what error messages call it; its own name by default.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is impossible.
    """
    if not path.exists():
        raise ConfigError(f"{path} not found: run from the repository's root")
    content = read_yaml(path)
    name = name or path.name
    params: Params = parse(Params, content, name)
    unset = list(_unset_fields(params, ""))
    if unset:
        raise ConfigError("\n".join(f"{name}: {key} is missing (usual value: {value!r})" for key, value in unset))
    return params


def _unset_fields(config: Config, prefix: str) -> Any:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name not in config.model_fields_set:
            if name not in MAY_BE_MISSING:
                yield prefix + name, value
        elif isinstance(value, Config) and not isinstance(value, RegionConfig):  # its keys exclude each other
            yield from _unset_fields(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, Config):
                    yield from _unset_fields(item, f"{prefix}{name}.{key}.")
