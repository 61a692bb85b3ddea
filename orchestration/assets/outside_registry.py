"""Reports of what `python -m orchestration registry` did in a terminal, to the assets `challenger` and `champion`.

Dagster's pages then show the same as after a run of the assets: metadata, pictures and, of a challenge, the checks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.metadata.external_metadata import metadata_value_from_external

from orchestration.assets.backfill import VERSION_TAG, record_materialisations, recorded_instance
from orchestration.assets.outside_run import report_checks
from orchestration.assets.registry_assets import CHALLENGER, CHAMPION, pictures, refusal_tag, tell_challenger
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.pipes import Check

MADE_BY = "python -m orchestration registry"


def tell(
    root: Path,
    asset: str,
    scenario: str,
    metadata: Mapping[str, Any],
    version: str | None,
    checks: Sequence[Check],
) -> str | None:
    """Report a materialisation and its checks to Dagster's record.

    Args:
        root: root of the repository.
        asset: `challenger` or `champion`.
        scenario: its partition.
        metadata: as for `orchestration.pipeline.pipes.report`.
        version: MD5 of the model; None if there is none.
        checks: results of the asset's checks.

    Returns:
        why it could not be told, or None. What was done in the registry holds all the same, so this is no error.
    """
    try:
        if asset == CHALLENGER and scenario in load_params(root / PARAMS).scenarios:
            record_materialisations(root, [scenario])  # the detector first, which the challenger is made from
        with recorded_instance(root) as instance:
            shown = {name: _value(value) for name, value in metadata.items()}
            shown = {"made by": MADE_BY, **shown, **pictures(root, asset, scenario)}
            tags = {VERSION_TAG: version} if version else {}
            made = dg.AssetMaterialization(asset, metadata=shown, partition=scenario, tags=tags)
            if not checks:
                instance.report_runless_asset_event(made)
            else:
                results = [(_result(asset, one, one.passed), False) for one in checks if one.passed is not None]
                skipped = [dg.AssetCheckKey(made.asset_key, one.name) for one in checks if one.passed is None]
                summary = f"{scenario}: {asset}, version {metadata['version']}, refused by: {metadata['refused']}"
                report_checks(instance, scenario, results, MADE_BY, summary, made, refusal_tag(metadata), skipped)
            if asset == CHAMPION and metadata["refused"] == "none":
                tell_challenger(instance, scenario, str(metadata["version"]))
    except Exception as error:  # each storage of Dagster has errors of its own
        return f"{type(error).__name__}: {error}"
    return None


def _value(value: Any) -> Any:
    """Return a link or table of `orchestration.pipeline.pipes` as Dagster's; other values stay as they are."""
    typed = isinstance(value, Mapping) and "raw_value" in value
    return metadata_value_from_external(value["raw_value"], value["type"]) if typed else value


def _result(asset: str, check: Check, passed: bool) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=asset,
        check_name=check.name,
        severity=dg.AssetCheckSeverity(check.severity),
        description=check.description,
        metadata=check.metadata,
    )
