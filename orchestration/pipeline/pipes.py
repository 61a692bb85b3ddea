"""Report what a command made to the Dagster asset that started it; in a terminal nobody listens and nothing happens.

This is the commands' side of Dagster Pipes, the only module that imports `dagster_pipes`, which is small and does not
bring Dagster. The assets' side is `orchestration.assets.command`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from llbnad.errors import ConfigError, DataError
from orchestration.pipeline.tables import plain_table

DESCRIPTION = "description"  # metadata of a check that becomes its description, which Pipes' messages have no room for
REFUSED = "refused"  # message of a command that would fail again
WILL_COME_AGAIN = (DataError, ConfigError)  # errors of what a user gave: images, settings, arguments
DRIFT, CONTROL_CHART, PARITY = "drift", "control_chart", "parity"  # checks that commands report and assets declare


@dataclass(frozen=True)
class Check:
    """The result of an asset check, or why there is none.

    Attributes:
        name: of the check.
        passed: None if there was nothing to check: Dagster calls a check without a result skipped.
        description: of the result, or why there is none.
        severity: of a failure.
        metadata: as for `report`.
    """

    name: str
    passed: bool | None
    description: str
    severity: Literal["WARN", "ERROR"] = "ERROR"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def connection() -> Iterator[None]:
    """Keep the channel to Dagster open during the block, if Dagster started this process.

    Dagster is told of an error that would come again: it then does not start the run once more.
    """
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield
        return
    context = open_dagster_pipes()
    try:
        yield
    except WILL_COME_AGAIN:
        context.report_custom_message(REFUSED)
        raise
    finally:
        context.close()


def is_heard() -> bool:
    """Return whether a Dagster asset has started this process."""
    return PipesContext.is_initialized()


def report(metadata: Mapping[str, Any], data_version: str | None = None, checks: Iterable[Check] = ()) -> None:
    """Report that the asset is materialised, and the results of its checks. Why a check has none becomes metadata.

    Args:
        metadata: numbers, texts and truth values, or what `table` returns, by the names people see.
        data_version: hash of what was made; None where nothing has one.
        checks: results of the asset's checks.
    """
    if not is_heard():
        return
    context, checks = PipesContext.get(), list(checks)
    untold = [one for one in checks if one.passed is None and f"check {one.name}" not in metadata]
    reasons = {f"check {one.name}": f"skipped: {one.description}" for one in untold}
    context.report_asset_materialization({**metadata, **reasons}, data_version)
    for check in checks:
        if check.passed is not None:
            details = {**check.metadata, DESCRIPTION: check.description}
            context.report_asset_check(check.name, check.passed, check.severity, details)


def link(address: str) -> dict[str, Any]:
    """Return the address of a web page as metadata."""
    return {"type": "url", "raw_value": address}


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Return a table as metadata; each row has one value per column."""
    plain = plain_table(columns, rows)
    schema = [{"name": name, "type": kind} for name, kind in plain.types.items()]
    return {"type": "table", "raw_value": {"records": plain.records, "schema": schema}}
