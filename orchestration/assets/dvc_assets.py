"""Dagster assets made from dvc.yaml: a stage is an asset, a scenario is a partition, a materialisation runs dvc.

The pipeline is not described a second time here. Names, dependencies, descriptions, groups, kinds and checks come from
dvc.yaml. DVC decides whether anything has to be computed. The data version is the hash in dvc.lock. Both doors, Dagster
and `dvc repro`, therefore lead to the same bytes.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from llbnad.utils.files import file_digest
from orchestration.assets.asset_metadata import metadata, table
from orchestration.assets.failure import failing
from orchestration.assets.partitions import SCENARIOS, Pattern, patterns
from orchestration.pipeline import code, dvc, settings
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS, stage_dir
from orchestration.pipeline.summary import listening

VERSION_TAG = "dagster/data_version"
PREREQUISITES = (code.STAGE, settings.SPLIT, settings.STAGE)  # cheap stages that an edit makes stale, causes first


def dvc_assets(root: Path, params: Params, sources: Sequence[str] = ()) -> list[dg.AssetsDefinition]:
    """Return one asset per stage, partitioned by scenario.

    Args:
        root: root of the repository.
        params: settings of the repository.
        sources: assets that precede the stages that depend on no other stage than `code`.

    Raises:
        DvcError: dvc cannot read its files.
    """
    listings = code.listings(root)
    assets = []
    for name, where in patterns(root, params).items():
        first = where.upstream <= {code.STAGE}  # `code` as well: before the ingest, a new line is no scenario yet
        upstream = sorted(where.upstream | ({*sources} if first else set()))
        listing = listings.get(where.template.code, pd.DataFrame())
        version = code.code_version(where.template.cmd, listing)
        assets.append(_asset(name, root, where, upstream, version))
    return assets


def check_results(report: Path, asset: str, check: str) -> dg.AssetCheckResult:
    """Return a Great Expectations report as the result of an asset check."""
    content = json.loads(report.read_text())
    findings = content["expectations"]
    keys = ("expectation", "success", "observed", "expected")
    failed = [item["expectation"] for item in findings if not item["success"]]
    return dg.AssetCheckResult(
        passed=content["success"],
        asset_key=asset,
        check_name=check,
        description="all expectations met" if not failed else "failed: " + "; ".join(failed),
        metadata={
            "expectations": len(findings),
            "failed": len(failed),
            "report": table(keys, [[item[key] for key in keys] for item in findings]),
        },
    )


def report_path(stage: str, root: Path) -> Path:
    """Return the file that a stage with checks writes its validation report to."""
    template, _, instance = stage.partition("@")
    return root / stage_dir(template, instance) / "validation.json"


def _asset(name: str, root: Path, where: Pattern, upstream: list[str], version: str) -> dg.AssetsDefinition:
    template = where.template
    checks: list[str] = list(template.meta.get("checks", []))

    @dg.asset(
        name=name,
        deps=[dg.AssetKey(before) for before in upstream],
        partitions_def=SCENARIOS,
        description=_description(template.desc, name),
        group_name=template.meta.get("group"),
        kinds={"dvc", *template.meta.get("kinds", [])},
        owners=list(template.meta.get("owners", [])),
        code_version=version,
        check_specs=[dg.AssetCheckSpec(check, asset=name, blocking=True) for check in checks],
        metadata={"dvc stage": f"{template.name} in dvc.yaml", "command": template.cmd},
    )
    def materialise(context: dg.AssetExecutionContext) -> Iterator[Any]:
        scenario = context.partition_key
        with failing():
            params = load_params(root / PARAMS)  # read now, because the scenario may be younger than this process
            # a new line has no scenario before it is ingested; stage `code` needs no scenario and may run first
            stage = where.stage(scenario, params.scenario(scenario).dataset if template.over else "")
            report = report_path(stage, root)
            for before in _left_out(context, upstream):
                if not _is_current(before, root, scenario, params):
                    context.log_event(_catch_up(before, root, scenario, context.log.info))
            try:
                shown = _reproduce(root, stage, context.log.info)
            except dvc.DvcError:
                yield from _failed_checks(report, name, checks)
                raise
        lock = dvc.read_lock(root)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(dvc.data_version(lock, stage)),
            metadata={**shown, **metadata(dvc.outputs(lock, stage), root, scenario)},
            check_results=[check_results(report, name, check) for check in checks],
        )

    return materialise


def _left_out(context: dg.AssetExecutionContext, upstream: Sequence[str]) -> list[str]:
    """Return the prerequisites of an asset that its run does not materialise, causes first."""
    chosen = context.run.asset_selection  # None means all assets of a job, and each job has all prerequisites
    if chosen is None:
        return []
    needed = {*upstream, *([settings.SPLIT] if settings.STAGE in upstream else [])}
    return [before for before in PREREQUISITES if before in needed and dg.AssetKey(before) not in chosen]


def _reproduce(root: Path, stage: str, log: Callable[[str], None]) -> dict[str, Any]:
    """Run the stage if DVC finds that it must; return what is to be shown of the run."""
    if stage == code.STAGE and _code_is_recorded(root):
        return {"outcome": "unchanged", "dvc stage": stage}
    with listening() as listener:
        outcome = dvc.repro_stage(root, stage, log, listener.environment)
        log(f"{stage}: {outcome}")
        return {"outcome": outcome, "dvc stage": stage, **listener.heard()}


def _code_is_recorded(root: Path) -> bool:
    """Return whether stage `code` has nothing to do.

    DVC is not asked: it would first lock the listings for writing, and so wait for every running stage, because each
    stage reads a listing.
    """
    if not code.are_current(root):
        return False
    paths = [code.listing_path(entry) for entry in code.ENTRIES]
    recorded = dvc.outputs(dvc.read_lock(root), code.STAGE)
    return recorded == {path.as_posix(): file_digest(root / path, "md5") for path in paths}


def _failed_checks(report: Path, asset: str, checks: Sequence[str]) -> Iterator[dg.AssetCheckResult]:
    """Yield the checks that failed in a stage; nothing if the stage failed for another reason."""
    if checks and report.exists() and not json.loads(report.read_text())["success"]:
        yield from (check_results(report, asset, check) for check in checks)


def _is_current(before: str, root: Path, scenario: str, params: Params) -> bool:
    if before == code.STAGE:
        return code.are_current(root)
    check = settings.entry_is_current if before == settings.SPLIT else settings.are_current
    return check(root, scenario, params)


def _catch_up(before: str, root: Path, scenario: str, log: Callable[[str], None]) -> dg.AssetMaterialization:
    """Run a prerequisite after an edit. An asset materialised alone must use current code and settings."""
    stage = f"{before}@{scenario}" if before == settings.STAGE else before
    shown = _reproduce(root, stage, log)
    lock = dvc.read_lock(root)
    return dg.AssetMaterialization(
        before,
        metadata={**shown, **metadata(dvc.outputs(lock, stage), root, scenario)},
        partition=scenario,
        tags={VERSION_TAG: dvc.data_version(lock, stage)},
    )


def _description(template: str, name: str) -> str:
    """Return the stage's description without DVC's placeholders."""
    number = name.rpartition("_")[2]
    text = template.replace("${item.stage}", number)
    text = re.sub(r"dataset \$\{[^}]+\}", "the dataset", text)
    return re.sub(r"\$\{[^}]+\}", "the scenario", text)
