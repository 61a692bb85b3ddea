"""Specifications of the stages' assets, from dvc.yaml: name, dependencies, description, group and command."""

import re

import dagster as dg

from orchestration.assets.changes import change_key
from orchestration.assets.partitions import Pattern
from orchestration.pipeline import dvc


def asset_spec(name: str, where: Pattern) -> dg.AssetSpec:
    """Return the specification of the asset `name`, whose stage for any scenario is `where`."""
    # no code version: Dagster would compare with the code that its server was started with
    template = where.template
    return dg.AssetSpec(
        name,
        deps=[change_key(name), *sorted(where.upstream | where.sources)],
        skippable=True,  # a run may select some of the stages
        description=f"{_description(template.desc, name)}. Up to date? {_link(change_key(name))} says so, and why not; "
        "the tab Partitions shows it of each scenario, once that is clicked",
        group_name=template.meta.get("group"),
        kinds={"dvc", *template.meta.get("kinds", [])},
        owners=list(template.meta.get("owners", [])),
        metadata={"dvc stage": f"{template.name} in dvc.yaml", "command": _command(template, name)},
    )


def _link(asset: dg.AssetKey) -> str:
    """Return a link to an asset's page, in Markdown."""
    return f"[{asset.to_user_string()}](/assets/{asset.to_user_string()})"


def _command(template: dvc.Template, name: str) -> str:
    """Return the stage's command with words for a person instead of DVC's placeholders."""
    number = name.rpartition("_")[2]
    text = template.cmd.replace("${item.stage}", number)
    return re.sub(r"\$\{[^}]+\}", "DATASET" if template.over == "datasets" else "SCENARIO", text)


def _description(template: str, name: str) -> str:
    """Return the stage's description without DVC's placeholders."""
    number = name.rpartition("_")[2]
    text = template.replace("${item.stage}", number)
    text = re.sub(r"dataset \$\{[^}]+\}", "the dataset", text)
    return re.sub(r"\$\{[^}]+\}", "the scenario", text)
