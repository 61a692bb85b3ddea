"""Dagster's partitions: one per scenario of params.yaml. One run materialises the chain of stages of a scenario.

Dagster keeps the partitions in its own database, so that a new line becomes a partition at once, without a reload of
the code. params.yaml is the truth: `sync` makes the partitions equal to its scenarios. Dagster's dialog "Add a
partition" can add a name that is no scenario; `refuse_unknown` says in one line what to do instead.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from llbnad.errors import ConfigError
from orchestration.pipeline import code, dvc
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import FINAL_STAGE, PARAMS

PARTITIONS = "scenario"  # name of the set of partitions in Dagster's database
INGEST = "ingest"  # asset that precedes the stages that depend on no other stage than `code`
SCENARIOS = dg.DynamicPartitionsDefinition(name=PARTITIONS)
NEW_SCENARIO = "new_scenario"  # name of the job that adds one


@dataclass(frozen=True)
class Chain:
    """The DVC stages of one scenario, by the names of their assets."""

    stages: Mapping[str, str]  # asset name -> DVC stage, e.g. sub_model_0 -> sub_model@a-0
    upstream: Mapping[str, frozenset[str]]  # asset name -> asset names


def chain(graph: Mapping[str, set[str]], scenario: str) -> Chain:
    """Return all stages that `evaluation@<scenario>` needs.

    A template with one of these stages gives an asset of its own name. A template with several stages gives the assets
    name_0, name_1, …
    """
    needed = _ancestors(graph, f"{FINAL_STAGE}@{scenario}")
    grouped: dict[str, list[str]] = {}
    for stage in needed:
        grouped.setdefault(template_of(stage), []).append(stage)
    names = {stage: _asset_name(stage, template, stages) for template, stages in grouped.items() for stage in stages}
    return Chain(
        {names[stage]: stage for stage in needed},
        {names[stage]: frozenset(names[before] for before in graph[stage]) for stage in needed},
    )


@dataclass(frozen=True)
class Pattern:
    """The stage of an asset, for any scenario. All scenarios have the same chain of stages."""

    template: dvc.Template
    suffix: str  # e.g. -0 for a sub-model
    upstream: frozenset[str]  # asset names

    @property
    def sources(self) -> frozenset[str]:
        """The asset that comes before this one and is no stage: before the ingest, a new line is no scenario yet."""
        return frozenset({INGEST} if self.upstream <= {code.STAGE} else ())

    def stage(self, scenario: str, dataset: str) -> str:
        """Return the DVC stage for a scenario that reads `dataset`."""
        if not self.template.over:
            return self.template.name
        return f"{self.template.name}@{dataset if self.template.over == 'datasets' else scenario}{self.suffix}"


def patterns(root: Path, params: Params) -> dict[str, Pattern]:
    """Return the stages of any scenario by asset name, causes first. DVC is asked for the first scenario's chain only.

    Raises:
        ConfigError: there is no scenario.
        DvcError: dvc cannot read its files.
    """
    if not params.scenarios:
        raise ConfigError(f"{PARAMS}: there is no scenario, and the assets are made from one: keep one of the demo's")
    templates = dvc.templates(root)
    first, settings = next(iter(params.scenarios.items()))
    one = chain(dvc.scenario_graph(root, first), first)
    found = {}
    for name, stage in one.stages.items():
        template = templates[template_of(stage)]
        instance = settings.dataset if template.over == "datasets" else first
        suffix = stage.partition("@")[2].removeprefix(instance)
        found[name] = Pattern(template, suffix, one.upstream[name])
    return found


def stages_of(found: Mapping[str, Pattern], params: Params, scenario: str) -> dict[str, str]:
    """Return the stages of a scenario by asset name, causes first."""
    dataset = params.scenario(scenario).dataset
    return {name: where.stage(scenario, dataset) for name, where in found.items()}


def all_stages(found: Mapping[str, Pattern], params: Params) -> set[str]:
    """Return every stage that `dvc repro` goes through."""
    scenarios = {(name, scenario.dataset) for name, scenario in params.scenarios.items()}
    of_datasets = [one for one in found.values() if one.template.over == "datasets"]
    return {one.stage(*pair) for one in found.values() for pair in scenarios} | {
        one.stage("", dataset) for one in of_datasets for dataset in params.datasets
    }


def sync(instance: dg.DagsterInstance, wanted: Collection[str]) -> list[str]:
    """Make the partitions equal to `wanted`: the scenarios of params.yaml, and lines that will become scenarios.

    Returns:
        the names that were taken away, sorted.
    """
    known = set(instance.get_dynamic_partitions(PARTITIONS))
    for name in dict.fromkeys(name for name in wanted if name not in known):
        try:
            instance.add_dynamic_partitions(PARTITIONS, [name])
        except Exception:  # each storage has its own error for a name that exists
            if not instance.has_dynamic_partition(PARTITIONS, name):  # another process may have added it
                raise
    gone = sorted(known - set(wanted))
    for name in gone:
        instance.delete_dynamic_partition(PARTITIONS, name)
    return gone


def refuse_unknown(partition: str, params: Params, lines: Collection[str] = ()) -> None:
    """Refuse a partition that is neither a scenario of params.yaml nor one of the production lines.

    Raises:
        ConfigError: the line that says so, and what to do.
    """
    if partition not in params.scenarios and partition not in lines:
        raise ConfigError(f"{not_known([partition])} (it has {', '.join(params.scenarios)})")


def not_known(partitions: Sequence[str]) -> str:
    """Return one line on partitions that are no scenarios, and how to add one."""
    names = ", ".join(partitions)
    return f"no scenario of {PARAMS} is called {names}: add one there, or with the job {NEW_SCENARIO}"


def template_of(stage: str) -> str:
    """Return the name in dvc.yaml of an expanded stage."""
    return stage.partition("@")[0]


def _asset_name(stage: str, template: str, siblings: Sequence[str]) -> str:
    return template if len(siblings) == 1 else f"{template}_{stage.rpartition('-')[2]}"


def _ancestors(graph: Mapping[str, set[str]], final: str) -> list[str]:
    """Return `final` and all stages before it, causes first, siblings in natural order."""
    ordered: list[str] = []

    def visit(stage: str) -> None:
        for before in sorted(graph[stage], key=lambda name: (len(name), name)):
            visit(before)
        if stage not in ordered:
            ordered.append(stage)

    visit(final)
    return ordered
