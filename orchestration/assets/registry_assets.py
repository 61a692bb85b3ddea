"""Champion and challenger as Dagster assets after the pipeline's last stage. They are no stages of dvc.yaml.

`challenger` registers stage 2's detector and has the findings as checks; what could not be compared is skipped, and
the metadata say why. `champion` moves the alias by the rule of `orchestration.registry.promotion`. Both run
`python -m orchestration registry`, which does the same without Dagster.

A refusal is a normal outcome and no crash, so the run succeeds. Its check has failed and is red; the log has one
warning that names the check and says what to do; the run has the tag `refused`; and `champion` says which version
stays. The checks do not block, because Dagster ends a run at a blocking check with a stack trace.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from llbnad.errors import DataError
from orchestration.assets.asset_metadata import metadata_of_files
from orchestration.assets.check_texts import check_spec
from orchestration.assets.checked_asset import checked_asset
from orchestration.assets.command import run_command
from orchestration.assets.dvc_assets import RAN
from orchestration.assets.failure import failing
from orchestration.assets.machines import has_several_machines
from orchestration.assets.outside_run import report_again
from orchestration.pipeline.paths import stage_dir
from orchestration.registry.comparison_files import champion_suspects, comparison_files
from orchestration.registry.register_version import CHECKS, report_path
from orchestration.registry.shown import COMPARED, next_after
from orchestration.registry.store import EXIT_REFUSED
from orchestration.slices.workplace import place_of

CHALLENGER, CHAMPION = "challenger", "champion"
PROMOTE = ("registry", "promote")
REFUSED_TAG = "refused"  # of a run, with the names of the checks
UNPROVEN_TAG = "unproven"  # of a run after which a line's first detector is in use


def registry_assets(root: Path, partitions: dg.PartitionsDefinition | None) -> list[dg.AssetsDefinition]:
    """Return the assets `challenger` and `champion`, partitioned like the pipeline.

    Args:
        root: root of the repository.
        partitions: partitions of the pipeline's assets.
    """
    return [_challenger(root, partitions), _champion(root, partitions)]


def _challenger(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        CHALLENGER,
        deps=["detector", "evaluation"],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector as a version of the registered model llbnad-SCENARIO, compared with the champion. "
        "The tab Checks joins all scenarios: the tab Partitions has each one's checks, and why one was skipped",
    )

    @checked_asset(spec, [check_spec(check, CHALLENGER, partitions) for check in CHECKS])
    def challenger(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        scenario = context.partition_key
        with failing(context):
            place = place_of(root, scenario)
        command = ["registry", "challenge", scenario]
        allowed = (0, EXIT_REFUSED)
        made = run_command(
            context, place, command, allowed, lambda: pictures(place, CHALLENGER, scenario), shown_on_checks=False
        )
        shown = {name: _text(made, name) for name in ("refused", "version", "champion", "next")}
        if tag := refusal_tag(shown):
            in_use, said = shown["version"] == shown["champion"], shown["next"]
            context.log.warning(said if in_use else f"version {shown['version']} of the detector is {said}")
            context.instance.add_run_tags(context.run_id, tag)
        yield made

    return challenger


def _champion(root: Path, partitions: dg.PartitionsDefinition | None) -> dg.AssetsDefinition:
    @dg.asset(
        name=CHAMPION,
        deps=[CHALLENGER],
        partitions_def=partitions,
        group_name="registry",
        kinds={"mlflow"},
        description="The detector in use: the alias `champion` of llbnad-SCENARIO, moved to the newest challenger "
        "unless a check has refused it or people have rolled it back",
    )
    def champion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        line, several = context.partition_key, has_several_machines(context.instance)
        # with several machines, the report and the pictures are on the worker that made the challenge
        with failing(context):
            version = _challenger_version(context.instance, line) if several else _judged_version(root, line)
        show = dict if several else lambda: pictures(root, CHAMPION, line)
        made = run_command(context, root, [*PROMOTE, line, version, "--if-accepted"], (0, EXIT_REFUSED), show)
        if _text(made, "refused") != "none":
            context.log.warning(_text(made, "outcome"))
        else:
            tell_challenger(context.instance, line, _text(made, "version"))
        new = _text(made, "version") != "none" and _text(made, "refused") == "none"
        if new and _text(made, "advice") != COMPARED:
            context.instance.add_run_tags(context.run_id, {UNPROVEN_TAG: "in use, compared with nothing: look at it"})
        run = context.instance.get_run_by_id(context.run_id)
        context.log.info(f"this run computed {run.tags.get(RAN, 'no stage') if run else '?'}; {_text(made, 'outcome')}")
        return made

    return champion


def refusal_tag(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return the tag of a run whose challenger was refused, from what is told of it; empty if it was not.

    Args:
        shown: refused (names of the checks, or `none`), version, and champion.
    """
    lost = str(shown["refused"])
    in_use = str(shown["version"]) == str(shown["champion"])
    return {} if lost == "none" else {REFUSED_TAG: f"in use, but {lost}" if in_use else lost}


def tell_challenger(instance: dg.DagsterInstance, scenario: str, champion: str) -> None:
    """Report the newest challenger again, with the version that is champion since a moment ago.

    The report, and that of the checks, belongs to the run of the one before.
    """
    from llbnad.monitoring.challenger_checks import UNPROVEN  # imports pandas

    record = _recorded_challenger(instance, scenario)
    made = record and record.asset_materialization
    if not record or not made:
        return
    version = str(made.metadata["version"].value)
    advice = made.metadata.get("advice")
    unproven = advice is not None and str(advice.value).startswith(UNPROVEN)
    now = {"champion": champion, "next": next_after(scenario, version, champion, unproven)}
    if now == {name: made.metadata[name].value for name in now if name in made.metadata}:
        return
    again = dg.AssetMaterialization(
        CHALLENGER, metadata={**made.metadata, **now}, partition=scenario, tags=made.tags or {}
    )
    report_again(instance, again, record.run_id, record.event_log_entry.job_name or "")


def pictures(place: Path, asset: str, scenario: str) -> dict[str, Any]:
    """Return pictures as metadata; what is missing is left out.

    Args:
        place: folder that holds the scenario's outputs.
        asset: `challenger`, for the newest detector beside the champion and its suspects; or `champion`, for the
            suspects of the version in use.
        scenario: name in params.yaml.
    """
    newest = [*comparison_files(scenario), stage_dir("purified", scenario) / "plots" / "suspects.png"]
    files = [place / file for file in (newest if asset == CHALLENGER else [champion_suspects(scenario)])]
    return metadata_of_files([file for file in files if file.exists()])


def _challenger_version(instance: dg.DagsterInstance, scenario: str) -> str:
    """Return the version of the scenario's newest challenger, as Dagster's record has it.

    Raises:
        DataError: there is no challenger.
    """
    record = _recorded_challenger(instance, scenario)
    if record is None or record.asset_materialization is None:
        raise DataError(f"no challenger of {scenario} is recorded: materialise {CHALLENGER} first")
    return str(record.asset_materialization.metadata["version"].value)


def _recorded_challenger(instance: dg.DagsterInstance, scenario: str) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(CHALLENGER), asset_partitions=[scenario])
    for found in instance.fetch_materializations(wanted, limit=1).records:
        if found.asset_materialization and "version" in found.asset_materialization.metadata:
            return found
    return None


def _judged_version(root: Path, scenario: str) -> str:
    """Return the version that the scenario's last challenge judged.

    Raises:
        DataError: nothing was judged.
    """
    path = root / report_path(scenario)
    if not path.exists():
        raise DataError(f"nothing was judged ({path} is missing): materialise {CHALLENGER} first")
    return str(json.loads(path.read_text())["version"])


def _text(made: dg.MaterializeResult[Any], name: str) -> str:
    """Return one entry of the metadata as text."""
    entry = (made.metadata or {})[name]
    return str(entry.value if isinstance(entry, dg.MetadataValue) else entry)
