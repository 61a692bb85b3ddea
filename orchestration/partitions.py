"""A scenario of params.yaml is a partition; its chain of stages is what one Dagster run materialises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FINAL = "evaluation"


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
