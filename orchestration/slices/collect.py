"""The union of all slices in the workspace's dvc.lock. Bytes stay in DVC's remote until somebody pulls them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.paths import FINAL_STAGE
from orchestration.slices.local_slice import SHARED
from orchestration.slices.refs import fetch, records
from orchestration.slices.run import renew_shared


@dataclass(frozen=True)
class Collected:
    """The result of `collect`."""

    slices: int
    stages: int  # entries that the slices hold
    changed: list[str]  # stages whose entry in dvc.lock was added or replaced
    unfinished: list[str]  # scenarios whose last stage is not recorded
    gone: list[str]  # slices of scenarios that params.yaml does not have; left out


def collect(root: Path, hear: Callable[[str], None]) -> Collected:
    """Put the entries of all slices into the dvc.lock at `root`, as one machine would have recorded them.

    The stages that serve all scenarios are the workspace's own: they run here, with all of params.yaml.

    Args:
        root: root of the repository.
        hear: called with each line of dvc.

    Raises:
        DisagreementError: two slices have different entries for the same stage; nothing has changed.
        SliceError: git failed.
        DvcError: a stage that serves all scenarios failed.
    """
    fetch(root)
    order, found = lock_blocks.stage_names(root), {record.scenario: record for record in records(root)}
    wanted = {name: record for name, record in found.items() if f"{FINAL_STAGE}@{name}" in order}
    known = {*order}
    entries = {
        stage: block
        for stage, block in lock_blocks.union({name: record.entries for name, record in wanted.items()}, SHARED).items()
        if stage in known
    }
    first = renew_shared(root, hear)
    return Collected(
        slices=len(wanted),
        stages=len(entries),
        changed=lock_blocks.update(root, entries, order, first),
        unfinished=[name for name, record in wanted.items() if f"{FINAL_STAGE}@{name}" not in record.entries],
        gone=sorted(found.keys() - wanted.keys()),
    )
