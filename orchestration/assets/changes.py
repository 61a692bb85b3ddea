"""The assets `changes/STAGE_changes`, and the tags by which Dagster calls a materialised asset "Unsynced" or not.

By itself, Dagster would call every stage stale after each edit of any setting, since all read what stage `settings`
wrote, and none before that stage ran; and a server would call an edited stage stale after it ran, since it compares
with the code that it was started with. DVC compares file by file, so DVC is asked (`orchestration.pipeline.staleness`).
Its word on a stage of a scenario is an observation of the external asset `changes/STAGE_changes`, which comes before
the asset of the stage: the version is that of the outputs, with the addition `OUT_OF_DATE` if something changed.
A materialisation names the observation that was true of it, so Dagster finds another version when DVC finds a change.
The other dependencies are shown with the versions that the stage read, and are compared by DVC alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster._core.definitions import data_version as tags
from dagster._core.event_api import EventLogRecord

from orchestration.assets.partitions import SCENARIOS, Pattern
from orchestration.pipeline import code, dvc
from orchestration.pipeline.staleness import StageState

CHANGES = "changes"  # prefix of the assets, and their group
OUT_OF_DATE = " (out of date)"  # ends the version of what DVC would not leave as it is
NEVER_RAN = "never ran"
RECENT = 10  # observations among which one is looked for that was reported a moment ago


def change_key(asset: str) -> dg.AssetKey:
    """Return the key of the external asset that tells when a stage's asset is out of date.

    Its last part is no name of a stage, because Dagster's lineage shows nothing else.
    """
    return dg.AssetKey([CHANGES, f"{asset}_{CHANGES}"])


def change_specs(assets: Iterable[str]) -> list[dg.AssetSpec]:
    """Return the external assets of the stages' assets."""
    return [
        dg.AssetSpec(
            change_key(asset),
            partitions_def=SCENARIOS,
            group_name=CHANGES,
            kinds={"dvc"},
            description=f"Whether DVC would run {asset} again, and why: settings, code or data. Nothing to "
            "materialise; the sensor `staleness` looks",
        )
        for asset in assets
    ]


class Changes:
    """Dagster's knowledge of the changes in one scenario's stages.

    Args:
        instance: Dagster's instance.
        found: the stages of any scenario by asset name.
        scenario: name of the scenario.
    """

    def __init__(self, instance: dg.DagsterInstance, found: Mapping[str, Pattern], scenario: str) -> None:
        self.instance, self.found, self.scenario = instance, found, scenario

    def observe(self, asset: str, version: str, because: Iterable[str] = ()) -> int:
        """Report that a stage has this version, unless that is known. Return the storage id of the observation.

        Args:
            asset: name of the stage's asset.
            version: version of the stage's outputs, perhaps with `OUT_OF_DATE`.
            because: reasons why it is out of date.
        """
        latest = next(self._records(asset), None)
        if latest is not None and _version(latest) == version:
            return latest.storage_id
        reasons = {"because": "; ".join(because)} if because else {}
        said = {"DVC says": "out of date" if version.endswith(OUT_OF_DATE) else "as recorded", **reasons}
        own = {tags.DATA_VERSION_TAG: version}
        self.instance.report_runless_asset_event(
            dg.AssetObservation(change_key(asset), partition=self.scenario, metadata=said, tags=own)
        )
        # another process may have reported since
        return next(record.storage_id for record in self._records(asset, RECENT) if _version(record) == version)

    def observe_state(self, asset: str, state: StageState, version: str) -> None:
        """Report the state of a stage whose outputs have this version."""
        if state.freshness == "never ran":
            self.observe(asset, NEVER_RAN)
        else:
            self.observe(asset, version + (OUT_OF_DATE if state.because else ""), state.because)

    def is_out_of_date(self, asset: str) -> bool:
        """Return whether DVC found a change in a stage when it was looked at last."""
        latest = next(self._records(asset), None)
        return latest is not None and _version(latest).endswith(OUT_OF_DATE)

    def provenance(self, asset: str, versions: Mapping[str, str], root: Path, late: bool) -> dict[str, str]:
        """Return the tags of a materialisation that is about to be reported.

        Args:
            asset: name of the stage's asset.
            versions: versions of the outputs of this stage and of the stages before it, by asset name.
            root: root of the repository, with the listing of the code that ran.
            late: whether DVC finds a change all the same, for example in a stage before it.
        """
        version = versions[asset]
        pointer = self.observe(asset, version)
        if late:
            self.observe(asset, version + OUT_OF_DATE, ["a stage before it is out of date"])
        read = {dg.AssetKey(before): versions.get(before, NEVER_RAN) for before in sorted(self.found[asset].upstream)}
        read |= {
            dg.AssetKey(source): tags.DEFAULT_DATA_VERSION.value for source in self.found[asset].sources
        }  # not followed
        return {
            tags.DATA_VERSION_TAG: version,
            tags.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
            tags.CODE_VERSION_TAG: code_version(self.found[asset], root),
            tags.get_input_data_version_tag(change_key(asset)): version,
            tags.get_input_event_pointer_tag(change_key(asset)): str(pointer),
            **{tags.get_input_data_version_tag(key): one for key, one in read.items()},
            **{tags.get_input_event_pointer_tag(key): tags.NULL_EVENT_POINTER for key in read},
        }

    def follows_parents(self, asset: str, ignored: Iterable[str]) -> bool:
        """Return whether a stage directly before this one, except those ignored, is out of date."""
        return any(self.is_out_of_date(before) for before in self.found[asset].upstream - {*ignored})

    def _records(self, asset: str, limit: int = 1) -> Iterator[EventLogRecord]:
        """Yield the latest observations of a stage's changes, newest first."""
        wanted = dg.AssetRecordsFilter(asset_key=change_key(asset), asset_partitions=[self.scenario])
        yield from self.instance.fetch_observations(wanted, limit=limit).records


def names_its_changes(event: dg.AssetMaterialization, asset: str) -> bool:
    """Return whether a materialisation has the tags of `provenance`; one of an earlier release has not."""
    return tags.get_input_event_pointer_tag(change_key(asset)) in (event.tags or {})


def versions(lock: Mapping[str, object], stages: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of the outputs of stages in dvc.lock, by asset name; those that never ran are left out."""
    return {asset: dvc.data_version(lock, stage) for asset, stage in stages.items() if dvc.outputs(lock, stage)}


def code_version(where: Pattern, root: Path) -> str:
    """Return a digest of a stage's command and of the code that ran, as listed."""
    listing = code.read_listing(root, where.template.code) if where.template.code else {}
    return code.code_version(where.template.cmd, listing)


def _version(record: EventLogRecord) -> str:
    found = tags.extract_data_version_from_entry(record.event_log_entry)
    return "" if found is None else found.value
