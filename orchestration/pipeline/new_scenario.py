"""A new scenario in params.yaml: data set, share of injected defects, and what differs from the shared `defaults`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from llbnad.config import ImageFolderDataset, InjectedNoise, Noise, NoNoise, parse
from llbnad.errors import ConfigError, percent_hint
from llbnad.purification.verdicts import write_verdicts
from llbnad.scenario import AnyDetector, AnyPolicy
from orchestration.pipeline.folder_entry import examine, folder_entry, is_folder, known_as
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.params_edit import add_scenario_entry, edit_params, flow, text
from orchestration.pipeline.paths import PARAMS, review_file


def add_scenario(
    root: Path,
    name: str,
    dataset: str,
    detector: str | None = None,
    alpha: float | None = None,
    policy: str | None = None,
    seed: int | None = None,
    tell: Callable[[str], None] = print,
    max_ratio: float | None = None,
) -> dict[str, Any]:
    """Add a scenario to params.yaml, and an empty file for people's verdicts on its images.

    A folder of images becomes a data set with the name of the scenario, unless one of params.yaml holds it already.

    Args:
        root: root of the repository.
        name: name of the scenario.
        dataset: name of a data set of params.yaml, or a folder of images, relative to the root or absolute.
        detector: name of the final detector; None, or that of `defaults`: as in `defaults`.
        alpha: share of anomalous training samples to inject, in [0, 1), which takes labels; None: the data as it is.
        policy: name of the selection policy; None, or that of `defaults`: as in `defaults`.
        seed: seed; None: as in `defaults`.
        tell: called with what was found in a folder, one line each.
        max_ratio: largest share that the scenarios of this data set are compared at, in [alpha, 1); the defects for it
            are set aside and never tested. None: as in the data set's other scenarios, at least `alpha`.

    Returns:
        the keys that were written.

    Raises:
        ConfigError: the name is taken or impossible, the data set is unknown, a value is impossible, or params.yaml is
            wrong. Nothing is written then.
        DataError: the folder is missing, or its images cannot be used so. Nothing is written then.
    """
    own: dict[str, Any] = {}
    before = load_params(root / PARAMS)
    _refuse_taken(before, name)
    known, entry, labelled = _data_set(before, root, name, dataset), None, True
    used = known or name
    if known is None:
        entry, its_seed = folder_entry(before, name, dataset), before.defaults.seed if seed is None else seed
        labelled = examine(root, entry, _noise(before, used, alpha, max_ratio), its_seed, tell)

    def change(params: Params, content: CommentedMap) -> bool:
        _refuse_taken(params, name)
        if entry is not None:
            folder_entry(params, name, dataset)  # the name is still free
            content["datasets"].insert(0, text(name), flow(_written(entry)))
        own["dataset"] = text(used)
        own["noise"] = _noise(params, used, alpha, max_ratio).model_dump(mode="json")
        if not labelled:  # without labels there is no oracle
            own["comparators"] = CommentedSeq(["none"])
            own["comparators"].fa.set_flow_style()
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


def _refuse_taken(params: Params, name: str) -> None:
    if name in params.scenarios:
        raise ConfigError(f"{PARAMS} has a scenario {name} already: choose another name, or edit it there")


def _data_set(params: Params, root: Path, name: str, given: str) -> str | None:
    """Return the data set of params.yaml that is meant; None for a folder that is none of them yet.

    Raises:
        ConfigError: it is neither a data set nor a folder.
    """
    if given in params.datasets:
        return given
    if is_folder(root, given):
        return known_as(params, given)
    known = ", ".join(params.datasets)
    raise ConfigError(
        f"dataset is {given!r}; expected a data set of {PARAMS} ({known}) or a folder such as data/own/{name}"
    )


def _written(entry: ImageFolderDataset) -> dict[str, Any]:
    """Return the keys of a data set that are written: what may be left out, and is usual, is."""
    return {"source": entry.source, "root": text(entry.root), "category": text(entry.category)}


def _noise(params: Params, dataset: str, alpha: float | None, max_ratio: float | None) -> Noise:
    """Return the noise of the scenario. What else it holds is as in the data set's other scenarios, to compare them."""
    if alpha is None:
        if max_ratio is not None:
            raise ConfigError(f"max_ratio is {max_ratio:g} without alpha, the share to inject: give both or none")
        return NoNoise()
    if not 0 <= alpha < 1:
        raise ConfigError(f"alpha must be in [0, 1), got {alpha:g}{percent_hint(alpha)}")
    if max_ratio is not None and not alpha <= max_ratio < 1:
        hint = percent_hint(max_ratio)
        raise ConfigError(f"max_ratio must be at least alpha, {alpha:g}, and below 1, got {max_ratio:g}{hint}")
    known = [one.noise for one in params.scenarios.values() if one.dataset == dataset]
    like = next((one for one in known if isinstance(one, InjectedNoise)), InjectedNoise())
    largest = max(like.max_ratio, alpha) if max_ratio is None else max_ratio
    return like.model_copy(update={"ratio": alpha, "max_ratio": largest})


def _chosen(key: str, name: str | None, usual: str, kind: Any) -> Mapping[str, Any]:
    """Return the whole settings of a detector or policy under its key, or nothing if it is the usual one."""
    if name in (None, "", usual):
        return {}
    return {key: parse(kind, name, key).model_dump(mode="json")}
