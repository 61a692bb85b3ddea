"""An asset whose checks may give no result, which Dagster then calls skipped.

A check of `dagster.asset` must give a result. Dagster asks that of no check of a `dagster.multi_asset` that can run in
part, but offers to run its checks alone, which these cannot.
"""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg


def checked_asset(
    spec: dg.AssetSpec, check_specs: Sequence[dg.AssetCheckSpec]
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return a decorator that makes one asset of a function, which yields a `MaterializeResult` or nothing.

    Args:
        spec: the asset.
        check_specs: its checks. One without a result is skipped; the asset's metadata says why.
    """
    (name,) = spec.key.path

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        made = dg.multi_asset(name=name, specs=[spec], check_specs=check_specs, can_subset=True)(function)
        return dg.AssetsDefinition.dagster_internal_init(**{**made.get_attributes_dict(), "can_subset": False})

    return decorate
