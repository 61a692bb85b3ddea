"""Champion and challenger as Dagster assets after the pipeline's last stage. They are no stages of dvc.yaml.

`challenger` registers stage 2's detector and has the findings as blocking checks; what could not be compared is a
warning that says "skipped", which blocks nothing. `champion` moves the alias, so it
runs only if all checks passed. Both run `python -m orchestration registry`, which does the same without Dagster.
"""

import json
from pathlib import Path

import dagster as dg

from orchestration.assets.command import run_command
from orchestration.registry.register_version import CHECKS, report_path
from orchestration.registry.store import EXIT_REFUSED

CHALLENGER, CHAMPION = "challenger", "champion"


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
        description="The detector as a version of the registered model llbnad-<scenario>, compared with the champion",
        check_specs=[dg.AssetCheckSpec(check, asset=CHALLENGER, blocking=True) for check in CHECKS],
    )
    def challenger(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return run_command(context, root, ["registry", "challenge", context.partition_key], allowed=(0, EXIT_REFUSED))

    return challenger


def _champion(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(
        name=CHAMPION,
        deps=[CHALLENGER],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector in use: the alias `champion` of llbnad-<scenario>, moved when no check has failed",
    )
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        version = _accepted(root, context.partition_key)
        return run_command(context, root, ["registry", "promote", context.partition_key, version, "--unless-withdrawn"])

    return champion


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
