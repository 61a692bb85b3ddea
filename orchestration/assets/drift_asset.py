"""Asset `drift` with an asset check of the same name, which warns if a line's newest batch differs from earlier images.

The comparison needs torch, which the code location does not load, so it runs as a command.
"""

from pathlib import Path

import dagster as dg

from orchestration.assets.check_texts import check_spec, skipped
from orchestration.assets.command import run_command
from orchestration.assets.failure import failing
from orchestration.assets.partitions import SCENARIOS, refuse_unknown
from orchestration.assets.pictures import picture
from orchestration.line.lines import known_lines
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS, drift_dir
from orchestration.pipeline.pipes import DRIFT
from orchestration.slices.workplace import place_of


def drift_asset(root: Path) -> dg.AssetsDefinition:
    """Return the asset `drift` of the repository at `root`."""

    @dg.asset(
        name=DRIFT,
        deps=["purified"],  # the share of rejected images is compared too
        partitions_def=SCENARIOS,
        group_name="data",
        kinds={"torch", "scipy"},
        description="Each batch of a production line against the images before it: features, brightness, sharpness, "
        "size, share of rejected images",
        check_specs=[check_spec(DRIFT, DRIFT, SCENARIOS)],
    )
    def watch(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        line = context.partition_key
        place = place_of(root, line)
        with failing(context):
            params = load_params(place / PARAMS)
            found = known_lines(place, params)
            refuse_unknown(line, params, found)
        if line not in found:
            reason = "no production line"
            return dg.MaterializeResult(metadata={"outcome": reason}, check_results=[skipped(DRIFT, reason)])
        history = place / drift_dir(line) / "history.png"
        return run_command(
            context,
            place,
            ["drift", line],
            show=lambda: {"history (picture)": picture(history)} if history.exists() else {},
        )

    return watch
