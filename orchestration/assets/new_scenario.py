"""The job `new_scenario`: a form in Dagster's launchpad that adds a scenario to params.yaml, and so a partition.

Dagster's own dialog "Add a partition" knows no params.yaml. A name that it adds is no scenario: the sensor of the
inboxes takes it away again, and a run of it ends with one line that says what to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from llbnad.config import InjectedNoise
from llbnad.detectors import DETECTORS
from llbnad.errors import ConfigError
from llbnad.policies import POLICIES
from llbnad.utils.registry import Registry
from orchestration.assets.failure import failing
from orchestration.assets.partitions import NEW_SCENARIO
from orchestration.assets.retraining import follow_params
from orchestration.line.lines import known_lines
from orchestration.pipeline.new_scenario import add_scenario
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS

STEP = "write_params"  # name of the only step, which the form names


def new_scenario_job(root: Path, params: Params) -> dg.JobDefinition:
    """Return the job `new_scenario` of the repository at `root`. Its form names what `params` has at this moment."""
    usual = params.defaults

    class NewScenario(dg.Config):
        """A scenario: one training on one data set."""

        # without a default, the launchpad says that it is missing before anything runs
        name: str = Field(description="Required: letters, digits and _. It becomes the name of the partition")
        dataset: str = Field(
            default=next(iter(params.datasets), ""),
            description=f"A data set of params.yaml ({', '.join(params.datasets)}), or a folder of images such as "
            "data/own/bottle, which becomes one; folders good/ and bad/ in it are labels",
        )
        detector: str = Field(default=usual.detector.name, description=f"Trained in both stages: {_choice(DETECTORS)}")
        alpha: float | None = Field(
            default=None,
            description="Share of defective training samples to inject, such as 0.1, in [0, 1). Leave it out (or null) "
            "for the images as they are: always for a folder without labels",
        )
        max_ratio: float | None = Field(
            default=None,
            description="Goes with alpha: the largest alpha that scenarios of the data set will have. As many defects "
            "are set aside, and the others are tested. Leave it out for what they have already (a new folder: "
            f"{InjectedNoise().max_ratio:g}); a folder with few defects takes a smaller one",
        )
        policy: str = Field(default=usual.selection.policy, description=f"What is kept: {_choice(POLICIES)}")
        seed: int = Field(default=usual.seed, description="Seed of noise, subsets and detectors")

    @dg.op(name=STEP, description=f"Adds the scenario to {PARAMS}, which stays as it is where a value is wrong")
    def write_params(context: dg.OpExecutionContext, config: NewScenario) -> None:
        with failing(context):
            if config.name in known_lines(root, load_params(root / PARAMS)):
                raise ConfigError(f"{config.name} is a production line, a scenario of its own: choose another name")
            chosen = (config.detector, config.alpha, config.policy, config.seed)
            own = add_scenario(root, config.name, config.dataset, *chosen, context.log.info, config.max_ratio)
            known = load_params(root / PARAMS)
        follow_params(context.instance, root, known)
        said = "; ".join(f"{key} {_plain(value)}" for key, value in own.items())
        context.log.info(f"{config.name} is in {PARAMS} and a partition now ({said})")
        context.log.info(f"next: open the job run_scenario, `Materialize all…`, and choose the partition {config.name}")

    @dg.job(
        name=NEW_SCENARIO,
        executor_def=dg.in_process_executor,
        description="A new partition: fill in the form of the launchpad and launch. It takes `name`, and if wanted "
        f"another `dataset` (one of {PARAMS}, or a folder of images), `detector`, `policy`, `seed` or `alpha`, with "
        f"`max_ratio`. The scenario is written into {PARAMS}, with what `defaults` says for everything else, and "
        "becomes a partition",
    )
    def new_scenario() -> None:
        write_params()

    return new_scenario


def _choice(registry: Registry) -> str:
    return f"one of {', '.join(registry.names)}, or a class of your own as module:Class"


def _plain(value: Any) -> str:
    """Return a value as people would say it: the pairs of a mapping without quotes."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return str(value)
