"""Asset `drift` with the asset check of the same name: a warning if a line's newest batch is unlike what came before.

The comparison needs torch, which the code location does not load, so it runs as a command.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.assets.asset_metadata import picture
from orchestration.assets.partitions import SCENARIOS
from orchestration.assets.retraining import known_lines
from orchestration.pipeline import dvc
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS, drift_dir

DRIFT = "drift"
AFTER = "purified"  # the share of rejected images is compared too


def drift_asset(root: Path) -> dg.AssetsDefinition:
    """Asset `drift` of the repository at `root`."""

    @dg.asset(
        name=DRIFT,
        deps=[dg.AssetKey(AFTER)],
        partitions_def=SCENARIOS,
        group_name="data",
        kinds={"torch", "scipy"},
        description="Each batch of a production line against the images before it: features, brightness, sharpness, "
        "size, share of rejected images",
        check_specs=[dg.AssetCheckSpec(DRIFT, asset=DRIFT, description="The newest batch is like those before it")],
    )
    def watch(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        line = context.partition_key
        if line not in known_lines(root, load_params(root / PARAMS)):
            return _result("no production line", {}, True)
        command = [sys.executable, "-m", "orchestration", "drift", line]
        done = subprocess.run(command, cwd=root, env=dvc.environment(), capture_output=True, text=True)
        if done.returncode != 0:
            raise dg.Failure(description=done.stderr.strip()[-2000:] or "no message", allow_retries=False)
        context.log.info(done.stdout.strip())
        reports = json.loads((root / drift_dir(line) / "report.json").read_text())
        if not reports:
            return _result("no earlier batch to compare with", {}, True)
        newest = max(map(int, reports))
        report = reports[str(newest)]
        history = picture(root / drift_dir(line) / "history.png")
        shown = {"batch": newest, "images": report["n_batch"], "history": history}
        return _result(f"batch {newest}: {report['reason']}", shown, not report["drifted"])

    return watch


def _result(reason: str, shown: dict[str, Any], passed: bool) -> dg.MaterializeResult:
    check = dg.AssetCheckResult(
        passed=passed,
        check_name=DRIFT,
        severity=dg.AssetCheckSeverity.WARN,
        description=reason,
        metadata=shown,
    )
    return dg.MaterializeResult(metadata={"outcome": reason, **shown}, check_results=[check])
