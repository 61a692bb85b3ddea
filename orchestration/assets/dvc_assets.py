"""Dagster assets made from dvc.yaml: a stage is an asset, a scenario is a partition, a run is one `dvc repro`.

The pipeline is not described a second time here. Names, dependencies, descriptions, groups, kinds and checks come from
dvc.yaml. DVC decides whether anything has to be computed. The data version is the hash in dvc.lock. Both doors, Dagster
and `dvc repro`, therefore lead to the same bytes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg

from llbnad.utils.files import file_digest
from orchestration.assets.asset_metadata import in_order, lines_of, metadata, table
from orchestration.assets.asset_specs import asset_spec
from orchestration.assets.changes import Changes, versions
from orchestration.assets.check_texts import check_spec
from orchestration.assets.command import COMMAND
from orchestration.assets.failure import failing
from orchestration.assets.partitions import SCENARIOS, Pattern, refuse_unknown, stages_of
from orchestration.pipeline import code, dvc, settings
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import FINAL_STAGE, PARAMS, stage_dir
from orchestration.pipeline.process import running
from orchestration.pipeline.repro import Outcome, StageError, outcome_of, repro_stages
from orchestration.pipeline.summary import Listener, in_one_line, listening
from orchestration.slices.workplace import open_workplace, place_of

STEP = "dvc_repro"  # name of the step that materialises the stages
VERSION_TAG = "dagster/data_version"
RAN = "ran"  # tag of a run: the stages that it computed
PREREQUISITES = (code.STAGE, settings.SPLIT, settings.STAGE)  # cheap stages that an edit makes stale, causes first


def dvc_assets(root: Path, found: Mapping[str, Pattern]) -> dg.AssetsDefinition:
    """Return one asset per stage, partitioned by scenario. One step of a run materialises all that are selected.

    Args:
        root: root of the repository.
        found: the stages of any scenario by asset name, causes first (`orchestration.assets.partitions`).
    """

    @dg.multi_asset(
        name=STEP,
        description="One `dvc repro` of the selected stages of a scenario",
        specs=[asset_spec(name, where) for name, where in found.items()],
        check_specs=[check_spec(check, name, SCENARIOS, blocking=True) for name, check in _checks(found)],
        partitions_def=SCENARIOS,
        can_subset=True,
    )
    def materialise(context: dg.AssetExecutionContext) -> Iterator[Any]:
        chosen = {key.to_user_string() for key in context.selected_asset_keys}
        checks = {(key.asset_key.to_user_string(), key.name) for key in context.selected_asset_check_keys}
        with failing(context):
            step = _Step(root, Changes(context.instance, found, context.partition_key), context.log.info)
            try:
                yield from step.run(chosen, checks, context.log_event)
            finally:
                context.log.info(f"this run: {in_words(step.ended)}")
                context.instance.add_run_tags(context.run_id, {RAN: named(step.ended, "ran")})

    return materialise


def check_results(report: Path, asset: str, check: str) -> dg.AssetCheckResult:
    """Return a Great Expectations report as the result of an asset check."""
    content = json.loads(report.read_text())
    findings = content["expectations"]
    keys = ("expectation", "success", "observed", "expected")
    failed = [item["expectation"] for item in findings if not item["success"]]
    return dg.AssetCheckResult(
        passed=content["success"],
        asset_key=asset,
        check_name=check,
        description="all expectations met" if not failed else "failed: " + "; ".join(failed),
        metadata={
            "expectations": len(findings),
            "failed": len(failed),
            "report": table(keys, [[item[key] for key in keys] for item in findings]),
        },
    )


def stage_metadata(lock: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return the name and the command of a stage as metadata; `lock` is the content of dvc.lock."""
    return {"dvc stage": stage, "command": lock["stages"][stage]["cmd"]}


def report_path(stage: str, root: Path) -> Path:
    """Return the file that a stage with checks writes its validation report to."""
    template, _, instance = stage.partition("@")
    return root / stage_dir(template, instance) / "validation.json"


class _Step:
    """One `dvc repro` of stages of a scenario.

    Args:
        home: root of the repository.
        changes: the scenario and its stages.
        log: called with each line of dvc.

    Raises:
        ConfigError: params.yaml is wrong or has no such scenario.
        SliceError: on a worker, the scenario cannot be taken.
    """

    def __init__(self, home: Path, changes: Changes, log: Callable[[str], None]) -> None:
        self.home, self.changes, self.log = home, changes, log
        self.scenario, self.found = changes.scenario, changes.found
        self.place = open_workplace(home, self.scenario, log)
        self.root = self.place.root
        self.params = load_params(self.root / PARAMS)  # read now: the scenario may be younger than this process
        refuse_unknown(self.scenario, self.params)
        self.stages = stages_of(self.found, self.params, self.scenario)
        self.names = {stage: name for name, stage in self.stages.items()}
        self.ended: dict[str, Outcome] = {}  # what dvc did, by asset

    def run(
        self, chosen: set[str], checks: set[tuple[str, str]], tell: Callable[[dg.AssetMaterialization], None]
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Yield each chosen asset as soon as its stage has ended.

        Prerequisites that an edit made stale run first, whether they are chosen or not; `tell` is called with those
        that are not. A check without its asset is read from the report of the stage's last run.
        """
        early = [name for name in self._left_out(chosen) if self.place.sliced or not self._is_current(name)]
        todo = [name for name in self.found if name in {*early, *chosen}]
        try:
            for stage, outcome, shown, tags in self._reproduced(todo):
                name = self.names[stage]
                self.ended[name] = outcome
                if name not in chosen:
                    if outcome != "unchanged":
                        tell(dg.AssetMaterialization(name, metadata=shown, partition=self.scenario, tags=tags))
                    continue
                own = [check for asset, check in sorted(checks) if asset == name]
                results = [check_results(report_path(stage, self.root), name, check) for check in own]
                version = dg.DataVersion(tags[VERSION_TAG])
                yield dg.MaterializeResult(
                    asset_key=name, data_version=version, metadata=shown, check_results=results, tags=tags
                )
        except StageError as error:
            report, failed = report_path(error.stage, self.root), self.names.get(error.stage, "")
            if any(asset == failed for asset, _ in checks) and _says_failed(report):
                yield from (check_results(report, failed, check) for asset, check in sorted(checks) if asset == failed)
            raise
        for name, check in sorted(checks):
            if name not in chosen and (report := report_path(self.stages[name], self.root)).exists():
                yield check_results(report, name, check)

    def _reproduced(self, todo: Sequence[str]) -> Iterator[tuple[str, Outcome, dict[str, Any], dict[str, str]]]:
        """Run the stages of assets where DVC finds that it must.

        Yields:
            a stage that has ended, what dvc did, what is to be shown of it, and the tags of its materialisation.
        """
        with listening() as listener:
            for stage, outcome in self._outcomes(todo, listener):
                heard = listener.heard(stage)
                self.log(in_one_line(stage, outcome, str(heard.get("summary", ""))))
                root, name = self.home if stage in self.place.shared else self.root, self.names[stage]
                lock, known = self._record(root, name)
                said = {"outcome": outcome, **stage_metadata(lock, stage), **heard}
                if len(lines := str(heard.get("summary", "")).splitlines()) > 1:  # one line shows best as it is
                    del said["summary"]
                    said |= lines_of("summary", lines)
                shown = in_order({**said, **metadata(dvc.outputs(lock, stage), root, self.scenario)})
                late = self.changes.follows_parents(name, PREREQUISITES)
                yield stage, outcome, shown, self.changes.provenance(name, known, root, late)

    def _record(self, root: Path, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return what dvc.lock says of a stage and of those before it, and the versions of their outputs by asset."""
        wanted = {one: self.stages[one] for one in (name, *self.found[name].upstream)}
        lock = dvc.read_entries(root, *wanted.values())
        return lock, versions(lock, wanted)

    def _outcomes(self, todo: Sequence[str], listener: Listener) -> Iterator[tuple[str, Outcome]]:
        def hear(line: str) -> None:
            event = outcome_of(line)
            if not listener.will_tell(line) and (event is None or event[1] == "ran"):  # else it is told at the end
                self.log(line)

        left = list(todo)
        yield from self.place.shared.items()
        if code.STAGE in left and not self.place.sliced and _code_is_recorded(self.root):
            left.remove(code.STAGE)
            yield code.STAGE, "unchanged"
        for shares in phases(left, self.found, self.params.runtime.processes):
            stages = [[self.stages[name] for name in share] for share in shares]
            # closed at once if a stage cannot be kept: dvc would go on as long as somebody holds the error
            with closing(repro_stages(self.root, stages, hear, listener.environment)) as events:
                for stage, outcome in events:
                    if stage not in self.place.shared:
                        self.place.keep([stage])
                        if self.names[stage] == FINAL_STAGE and outcome == "restored from cache":
                            self._record_restored()
                        yield stage, outcome

    def _record_restored(self) -> None:
        """Record the scenario in MLflow if its results are not there yet, since no stage ran that would."""
        with running([*COMMAND, "record", "--missing", self.scenario], place_of(self.home, self.scenario)) as process:
            assert process.stdout is not None
            for line in process.stdout:
                self.log(line.rstrip())

    def _left_out(self, chosen: set[str]) -> list[str]:
        """Return the prerequisites of chosen assets that are not chosen themselves, causes first."""
        needed = {before for name in chosen for before in self.found[name].upstream}
        needed |= {settings.SPLIT} if settings.STAGE in needed else set()
        return [before for before in PREREQUISITES if before in needed - chosen]

    def _is_current(self, before: str) -> bool:
        if before == code.STAGE:
            return code.are_current(self.root)
        check = settings.entry_is_current if before == settings.SPLIT else settings.are_current
        return check(self.root, self.scenario, self.params)


def phases(names: Sequence[str], found: Mapping[str, Pattern], processes: int) -> list[list[list[str]]]:
    """Divide assets into dvc processes that run one after another or side by side.

    Args:
        names: names of assets, causes first.
        found: their stages.
        processes: number of processes that may run side by side.

    Returns:
        phases, one after another; each phase is a list of shares side by side, and a share is a list of names. Only the
        instances of one template, such as the sub-models, do not depend on each other.
    """
    templates = [found[name].template.name for name in names]
    several = [name for name, template in zip(names, templates, strict=True) if templates.count(template) > 1]
    if processes == 1 or not several:
        return [[list(names)]] if names else []
    first = names.index(several[0])
    count = min(processes, len(several))
    shares = [several[number::count] for number in range(count)]
    rest = [name for name in names[first:] if name not in several]
    return [phase for phase in ([list(names[:first])], shares, [rest]) if any(phase)]


def in_words(ended: Mapping[str, Outcome]) -> str:
    """Return which stages ran, were restored and were left alone, in one line."""
    return "; ".join(f"{outcome}: {named(ended, outcome)}" for outcome in dict.fromkeys(ended.values()))


def named(ended: Mapping[str, Outcome], outcome: Outcome) -> str:
    """Return the names of the assets with this outcome, or `none`."""
    return ", ".join(name for name, one in ended.items() if one == outcome) or "none"


def _checks(found: Mapping[str, Pattern]) -> list[tuple[str, str]]:
    """Return all checks as (asset, name)."""
    return [(name, check) for name, where in found.items() for check in where.template.meta.get("checks", [])]


def _code_is_recorded(root: Path) -> bool:
    """Return whether stage `code` has nothing to do.

    DVC is not asked: it would first lock the listings for writing, and so wait for every running stage, because each
    stage reads a listing.
    """
    if not code.are_current(root):
        return False
    paths = [code.listing_path(entry) for entry in code.ENTRIES]
    recorded = dvc.outputs(dvc.read_entries(root, code.STAGE), code.STAGE)
    return recorded == {path.as_posix(): file_digest(root / path, "md5") for path in paths}


def _says_failed(report: Path) -> bool:
    """Return whether a check failed in a stage that failed; False if the stage failed for another reason."""
    return report.exists() and not json.loads(report.read_text())["success"]
