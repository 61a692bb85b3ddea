"""A new scenario in params.yaml: data set, share of injected defects, and what differs from the shared `defaults`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from llbnad.config import InjectedNoise, Noise, NoNoise, parse
from llbnad.errors import ConfigError, percent_hint
from llbnad.purification.verdicts import write_verdicts
from llbnad.scenario import AnyDetector, AnyPolicy
from orchestration.pipeline.params import Params
from orchestration.pipeline.params_edit import add_scenario_entry, edit_params, text
from orchestration.pipeline.paths import PARAMS, review_file


def add_scenario(
    root: Path,
    name: str,
    dataset: str,
    detector: str | None = None,
    alpha: float | None = None,
    policy: str | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Add a scenario to params.yaml, and an empty file for people's verdicts on its images.

    Args:
        root: root of the repository.
        name: name of the scenario.
        dataset: name of a data set of params.yaml.
        detector: name of the final detector; None, or that of `defaults`: as in `defaults`.
        alpha: share of anomalous training samples to inject, in [0, 1), which takes labels; None: the data as it is.
        policy: name of the selection policy; None, or that of `defaults`: as in `defaults`.
        seed: seed; None: as in `defaults`.

    Returns:
        the keys that were written.

    Raises:
        ConfigError: the name is taken or impossible, the data set is unknown, a value is impossible, or params.yaml is
            wrong. Nothing is written then.
    """
    own: dict[str, Any] = {}

    def change(params: Params, content: CommentedMap) -> bool:
        if name in params.scenarios:
            raise ConfigError(f"{PARAMS} has a scenario {name} already: choose another name, or edit it there")
        params.dataset(dataset)
        own["dataset"] = text(dataset)
        own["noise"] = _noise(params, dataset, alpha).model_dump(mode="json")
        if seed is not None and seed != params.defaults.seed:
            own["seed"] = seed
        own.update(_chosen("detector", detector, params.defaults.detector.name, AnyDetector))
        own.update(_chosen("selection", policy, params.defaults.selection.policy, AnyPolicy))
        own["review"] = review_file(name).as_posix()
        add_scenario_entry(content, name, own)
        return True

    edit_params(root, change)
    if not (root / review_file(name)).exists():
        write_verdicts({}, root / review_file(name))
    return own


def _noise(params: Params, dataset: str, alpha: float | None) -> Noise:
    """Return the noise of the scenario. What else it holds is as in the data set's other scenarios, to compare them."""
    if alpha is None:
        return NoNoise()
    if not 0 <= alpha < 1:
        raise ConfigError(f"alpha must be in [0, 1), got {alpha:g}{percent_hint(alpha)}")
    known = [one.noise for one in params.scenarios.values() if one.dataset == dataset]
    like = next((one for one in known if isinstance(one, InjectedNoise)), InjectedNoise())
    return like.model_copy(update={"ratio": alpha, "max_ratio": max(like.max_ratio, alpha)})


def _chosen(key: str, name: str | None, usual: str, kind: Any) -> Mapping[str, Any]:
    """Return the whole settings of a detector or policy under its key, or nothing if it is the usual one."""
    if name in (None, "", usual):
        return {}
    return {key: parse(kind, name, key).model_dump(mode="json")}
