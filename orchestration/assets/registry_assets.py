"""Champion and challenger as Dagster assets after the pipeline's last stage. They are no stages of dvc.yaml.

`challenger` registers stage 2's detector and has the findings as blocking checks; what could not be compared is a
warning that says "skipped", which blocks nothing. `champion` moves the alias, so it
runs only if all checks passed. Both run `python -m orchestration registry`, which does the same without Dagster.
"""

import json
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.asset_metadata import metadata_of_files
from orchestration.assets.check_texts import check_spec
from orchestration.assets.command import run_command
from orchestration.assets.machines import has_several_machines
from orchestration.pipeline.paths import stage_dir
from orchestration.registry.beside_champion import comparison_files
from orchestration.registry.register_version import CHECKS, report_path
from orchestration.registry.store import EXIT_REFUSED
from orchestration.slices.workplace import place_of

CHALLENGER, CHAMPION = "challenger", "champion"
PROMOTE = ("registry", "promote")


def registry_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """Return the assets `challenger` and `champion`, partitioned like the pipeline.

    Args:
        root: root of the repository.
        partitions: partitions of the pipeline's assets.
    """
    return [_challenger(root, partitions), _champion(root, partitions)]


def _challenger(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(
        name=CHALLENGER,
        deps=["detector", "evaluation"],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector as a version of the registered model llbnad-SCENARIO, compared with the champion",
        check_specs=[check_spec(check, CHALLENGER, partitions, blocking=True) for check in CHECKS],
    )
    def challenger(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        scenario = context.partition_key
        place = place_of(root, scenario)
        command = ["registry", "challenge", scenario]
        allowed = (0, EXIT_REFUSED)
        return run_command(context, place, command, allowed, lambda: _pictures(place, scenario), shown_on_checks=False)

    return challenger


def _champion(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(
        name=CHAMPION,
        deps=[CHALLENGER],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector in use: the alias `champion` of llbnad-SCENARIO, moved when no check has failed",
    )
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        line = context.partition_key
        if has_several_machines(context.instance):  # the report is on the worker that made the challenge
            version = _challenger_version(context.instance, line)
            return run_command(context, root, [*PROMOTE, line, version, "--unless-withdrawn", "--unless-refused"])
        promote = [*PROMOTE, line, _accepted(root, line), "--unless-withdrawn"]
        return run_command(context, root, promote, show=lambda: _pictures(root, line))

    return champion


def _pictures(place: Path, scenario: str) -> dict[str, Any]:
    """Return the newest detector beside the champion, and its suspects, as metadata; what is missing is left out."""
    suspects = stage_dir("purified", scenario) / "plots" / "suspects.png"
    files = [place / file for file in (*comparison_files(scenario), suspects)]
    return metadata_of_files([file for file in files if file.exists()])


def _challenger_version(instance: dg.DagsterInstance, scenario: str) -> str:
    """Return the version of the scenario's newest challenger, as Dagster's record has it.

    Raises:
        Failure: there is no challenger.
    """
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(CHALLENGER), asset_partitions=[scenario])
    for found in instance.fetch_materializations(wanted, limit=1).records:
        if found.asset_materialization and "version" in found.asset_materialization.metadata:
            return str(found.asset_materialization.metadata["version"].value)
    raise dg.Failure(f"no challenger of {scenario} is recorded: materialise {CHALLENGER} first", allow_retries=False)


def _accepted(root: Path, scenario: str) -> str:
    """Return the version that the scenario's last challenge accepted.

    Raises:
        Failure: nothing was judged, or the challenger was refused. The checks did not stop this asset because it was
            materialised alone.
    """
    path = root / report_path(scenario)
    if not path.exists():
        raise dg.Failure(f"nothing was judged ({path} is missing): materialise {CHALLENGER} first")
    report = json.loads(path.read_text())
    lost = [finding["name"] for finding in report["findings"] if finding["outcome"] == "failed"]
    if lost:
        raise dg.Failure(
            f"the challenger was refused ({', '.join(lost)}); to promote it all the same: "
            f"python -m orchestration registry promote {scenario} {report['version']}",
            allow_retries=False,
        )
    return str(report["version"])
