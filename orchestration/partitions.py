"""A scenario of params.yaml is a partition; its chain of stages is what one Dagster run materialises.

Dagster keeps the partitions in its own database, so that a new line is one at once, without a reload of the code. The
truth is params.yaml: `sync` makes the one equal to the other.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from orchestration.dvc import Template

FINAL = "evaluation"
NAME = "scenario"
SCENARIOS = dg.DynamicPartitionsDefinition(name=NAME)


@dataclass(frozen=True)
class Chain:
    """The DVC stages of one scenario under the names their assets have."""

    stages: Mapping[str, str]  # asset name -> DVC stage, e.g. sub_model_0 -> sub_model@a-0
    upstream: Mapping[str, frozenset[str]]  # asset name -> asset names


def chain(graph: Mapping[str, set[str]], scenario: str) -> Chain:
    """All stages that `evaluation@<scenario>` needs.

    A template with one stage among them gives an asset of its name; one with several gives name_0, name_1 ….
    """
    needed = _ancestors(graph, f"{FINAL}@{scenario}")
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
    """The name of an asset's stage, for any scenario: the chain of one scenario is the chain of all."""

    template: str
    over: str  # datasets or scenarios
    suffix: str  # e.g. -0 of a sub-model

    def stage(self, scenario: str, dataset: str) -> str:
        """The DVC stage of a scenario that reads `dataset`."""
        return f"{self.template}@{dataset if self.over == 'datasets' else scenario}{self.suffix}"


def pattern(stage: str, template: Template, scenario: str, dataset: str) -> Pattern:
    """What `stage` of `scenario` has in common with the same stage of other scenarios."""
    instance = dataset if template.over == "datasets" else scenario
    return Pattern(template.name, template.over, stage.partition("@")[2].removeprefix(instance))


def sync(instance: dg.DagsterInstance, wanted: Collection[str]) -> None:
    """Make the partitions those that are wanted: the scenarios of params.yaml and lines on their way there."""
    known = set(instance.get_dynamic_partitions(NAME))
    for name in dict.fromkeys(name for name in wanted if name not in known):
        try:
            instance.add_dynamic_partitions(NAME, [name])
        except Exception:  # each storage has its own error for a name that is there already
            if not instance.has_dynamic_partition(NAME, name):  # else another process was faster
                raise
    for name in known - set(wanted):
        instance.delete_dynamic_partition(NAME, name)


def template_of(stage: str) -> str:
    """The name in dvc.yaml of an expanded stage."""
    return stage.partition("@")[0]


def _asset_name(stage: str, template: str, siblings: Sequence[str]) -> str:
    return template if len(siblings) == 1 else f"{template}_{stage.rpartition('-')[2]}"


def _ancestors(graph: Mapping[str, set[str]], final: str) -> list[str]:
    """`final` and everything before it, causes first; siblings in natural order."""
    ordered: list[str] = []

    def visit(stage: str) -> None:
        for before in sorted(graph[stage], key=lambda name: (len(name), name)):
            visit(before)
        if stage not in ordered:
            ordered.append(stage)

    visit(final)
    return ordered
