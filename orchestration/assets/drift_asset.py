"""Asset `drift` with two asset checks, which warn if a line changes.

`drift` looks at the newest batch and the newest scored images, `control_chart` at the shares of defects and of unsure
images in the last hours. The comparison needs torch, which the code location does not load, so it runs as a command.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from orchestration.assets.check_texts import check_spec
from orchestration.assets.checked_asset import checked_asset
from orchestration.assets.command import run_command
from orchestration.assets.failure import failing
from orchestration.assets.partitions import SCENARIOS, refuse_unknown
from orchestration.assets.pictures import picture
from orchestration.inspection.chart import PICTURE
from orchestration.line.lines import known_lines
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS, drift_dir, inspected_dir
from orchestration.pipeline.pipes import CONTROL_CHART, DRIFT
from orchestration.slices.workplace import place_of

drift_job = dg.define_asset_job(
    "check_drift",
    selection=dg.AssetSelection.assets(DRIFT),
    description="Compare what a line shows now with what it has learnt. The sensor `inspections` starts it when enough "
    "images were scored",
)


def drift_asset(root: Path) -> dg.AssetsDefinition:
    """Return the asset `drift` of the repository at `root`."""

    spec = dg.AssetSpec(
        DRIFT,
        deps=["purified"],  # the share of rejected images is compared too
        partitions_def=SCENARIOS,
        group_name="data",
        kinds={"torch", "scipy"},
        description="Each batch of a production line against the images before it: features, brightness, sharpness, "
        "size, share of rejected images; and what was scored since the last training",
    )

    @checked_asset(spec, [check_spec(name, DRIFT, SCENARIOS) for name in (DRIFT, CONTROL_CHART)])
    def drift(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        line = context.partition_key
        with failing(context):
            place = place_of(root, line)
            params = load_params(place / PARAMS)
            found = known_lines(place, params)
            refuse_unknown(line, params, found)
        if line not in found:
            yield dg.MaterializeResult(metadata={"outcome": "no production line"})
            return
        pictures = {
            "history (picture)": place / drift_dir(line) / "history.png",
            "control chart (picture)": place / inspected_dir(line) / PICTURE,
        }
        yield run_command(
            context,
            place,
            ["drift", line],
            show=lambda: {name: picture(path) for name, path in pictures.items() if path.exists()},
        )

    return drift
