"""Champion and challenger as Dagster assets behind the pipeline's last stages; dvc.yaml knows nothing of them.

`challenger` registers stage 2's detector and carries the verdict as blocking checks; `champion` moves the alias and so
runs only if all of them passed. Both run `python -m orchestration registry`, which does the same without Dagster.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.pipeline import dvc
from orchestration.registry.challenge import CHECKS, report_path
from orchestration.registry.store import EXIT_REFUSED

CHALLENGER, CHAMPION = "challenger", "champion"


def registry_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """`challenger` and `champion`, partitioned like the pipeline.

    Args:
        root: the repository.
        partitions: of the pipeline's assets.
    """

    @dg.asset(
        name=CHALLENGER,
        deps=["detector", "evaluation"],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector as a version of the registered model llbnad-<scenario>, compared with the champion",
        check_specs=[dg.AssetCheckSpec(check, asset=CHALLENGER, blocking=True) for check in CHECKS],
    )
    def challenger(context: dg.AssetExecutionContext) -> Iterator[Any]:
        run_module(
            root, ["orchestration", "registry", "challenge", context.partition_key], context, allowed=(EXIT_REFUSED,)
        )
        report = json.loads((root / report_path(context.partition_key)).read_text())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(report["md5"]),
            metadata={
                "version": report["version"],
                "registered": report["registered"],
                "champion": report["champion"] or "none yet",
                "findings": dg.MetadataValue.md(findings_table(report["findings"])),
            },
            check_results=[check_result(finding) for finding in report["findings"]],
        )

    @dg.asset(
        name=CHAMPION,
        deps=[CHALLENGER],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector in use: the alias `champion` of llbnad-<scenario>, moved when every check has passed",
    )
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        path = root / report_path(context.partition_key)
        if not path.exists():
            raise dg.Failure(f"nothing was judged ({path} is missing): materialise {CHALLENGER} first")
        report = json.loads(path.read_text())
        lost = [finding["name"] for finding in report["findings"] if not finding["passed"]]
        if lost:  # materialised alone, past the checks
            raise dg.Failure(
                f"the challenger was refused ({', '.join(lost)}); to promote it all the same: "
                f"python -m orchestration registry promote {context.partition_key} {report['version']}",
                allow_retries=False,
            )
        command = [
            "orchestration",
            "registry",
            "promote",
            context.partition_key,
            report["version"],
            "--unless-withdrawn",
        ]
        said = run_module(root, command, context)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(report["md5"]),
            metadata={"version": report["version"], "outcome": said[-1], "before": report["champion"] or "none"},
        )

    return [challenger, champion]


def run_module(
    root: Path, command: Sequence[str], context: dg.AssetExecutionContext, allowed: Sequence[int] = ()
) -> list[str]:
    """Run `python -m command` in the repository, in a session that ends with the run; returns its lines.

    Raises:
        Failure: its exit code is neither 0 nor `allowed`; the message is what it said last.
    """
    lines = []
    with dvc.running(["-m", *command], root, executable=sys.executable) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            context.log.info(lines[-1])
        code = process.wait()
    if code not in (0, *allowed):
        raise dg.Failure("\n".join(lines[-15:]), allow_retries=False)
    return lines


def check_result(finding: Mapping[str, Any]) -> dg.AssetCheckResult:
    """One finding of `llbnad.monitoring.acceptance` as the result of an asset check."""
    verdict = "" if finding["passed"] else "refused: "
    return dg.AssetCheckResult(
        passed=finding["passed"],
        asset_key=CHALLENGER,
        check_name=finding["name"],
        description=f"{verdict}{finding['observed']}, expected {finding['expected']}",
        metadata={"observed": finding["observed"], "expected": finding["expected"]},
    )


def findings_table(findings: Sequence[Mapping[str, Any]]) -> str:
    """All findings as a Markdown table."""
    rows = ["check|passed|observed|expected", "---|---|---|---"]
    return "\n".join([*rows, *(f"{f['name']}|{f['passed']}|{f['observed']}|{f['expected']}" for f in findings)])
