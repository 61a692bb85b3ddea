"""A slice: the same repository with one scenario, worked in a workspace of its own on any machine.

No stage reads two scenarios, so a scenario can be worked alone. A worker works in a git worktree of its clone, whose
params.yaml has one scenario and its data set, with a DVC lock of its own: nothing is shared and nothing waits. Code
and record travel by git, bytes by DVC's remote. After each stage the worker pushes the stage's bytes, and then their
record, which is the slice's dvc.lock, to the ref `refs/llbnad/<scenario>` of the remote repository. Whoever sees a
record has the bytes.

Whoever takes a scenario puts a commit on top of its ref. A push is accepted only on top of the worker's own last
commit, so the worker that had the scenario before is refused from then on, whatever it still computes.

The folder that LLBNAD_MACHINE names belongs to the machine: slices/ (worktrees), cache/ (DVC's), features/ (encoded
images). It is a cache: all of it comes back.
"""

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.cluster import MACHINE
from orchestration.pipeline.paths import PARAMS
from orchestration.slices.data import connect, pull_data, run_dvc, to_pull
from orchestration.slices.params import slice_params
from orchestration.slices.refs import MAIN, SliceError, alone, fetch, git, record, recorded, remove, tip

_held: dict[Path, FileLock] = {}  # slices of this process; the system takes them back when it ends


@dataclass(frozen=True)
class SliceMark:
    """The file in a slice that says which slice it is."""

    scenario: str
    tip: str  # the commit that this worker put on the ref last

    @classmethod
    def read(cls, place: Path) -> "SliceMark | None":
        """Return the mark of the slice at `place`; None if no slice is there."""
        path = place / ".dvc" / "tmp" / "slice.json"
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def write(self, place: Path) -> None:
        """Write the mark of the slice at `place`."""
        path = place / ".dvc" / "tmp" / "slice.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


def workspace(root: Path, scenario: str) -> Path:
    """Return the folder to work a scenario in: a slice on a worker, `root` itself where LLBNAD_MACHINE is not set.

    Call it once, before a run's `dvc repro`. The slice stays this process's until it ends.

    Raises:
        SliceError: see `take`.
    """
    folder = os.environ.get(MACHINE)
    return take(root, Path(folder), scenario) if folder else root


def slice_folder(machine: Path, scenario: str) -> Path:
    """Return the folder of a scenario's slice on a machine."""
    return machine.absolute() / "slices" / scenario


def take(root: Path, machine: Path, scenario: str, commit: str | None = None) -> Path:
    """Take a scenario: make its slice ready, with all that was recorded of it, and claim its ref.

    Args:
        root: a clone of the repository.
        machine: folder of this machine.
        scenario: name in params.yaml.
        commit: the code and params.yaml to work with; by default, the remote's default branch as it is now.

    Returns:
        The folder of the slice.

    Raises:
        ConfigError: params.yaml has no such scenario.
        OvertakenError: another worker took it at the same moment.
        NoDataError: workers cannot get the data set, or the repository has no DVC remote. The scenario is nobody's.
        SliceError: another process of this machine works on it, or git failed.
        DvcError: what was recorded could not be pulled.
    """
    machine = machine.absolute()
    place = slice_folder(machine, scenario)
    _hold(place)
    with alone(root):
        fetch(root)
        base, known = git(root, "rev-parse", commit or MAIN), tip(root, scenario)
        text, dataset = slice_params(git(root, "cat-file", "blob", f"{base}:{PARAMS}") + "\n", scenario)
        _worktree(root, place, base, known)
    (place / PARAMS).write_text(text, encoding="utf-8")
    connect(root, place, machine)
    data = to_pull(place, dataset)
    names = lock_blocks.stage_names(place)
    own = recorded(root, known) if known else {}
    found = {**recorded(root, base), **own}
    found = {name: found[name] for name in names if name in found}
    lock_blocks.write_blocks(place, found)
    entries = {name: own[name] for name in names if name in own}
    if data:
        pull_data(place, data)
    _record(place, scenario, f"taken by {_worker(place)}", entries, known, base)
    if found:  # what the remote has lost is computed again
        run_dvc(place, "pull", "--no-run-cache", "--allow-missing", *found)
    return place


def publish(place: Path, stages: Sequence[str] | None = None) -> list[str]:
    """Publish finished stages of a slice: their bytes first, then their record. Call it after each finished stage.

    A stage whose record is published already is left out, so it may be called for unchanged stages as well: they may
    have been finished while a server was away. Where `place` is no slice, nothing happens.

    Args:
        place: what `workspace` returned.
        stages: names in dvc.lock; all stages that are there, by default.

    Returns:
        The stages that were published.

    Raises:
        OvertakenError: another worker has taken the scenario over, or its slice was dropped; nothing of this one is
            recorded any more.
        SliceError: git failed.
        DvcError: the bytes could not be pushed. The outcome stays in the slice, and the next call publishes it.
    """
    mark = SliceMark.read(place)
    if mark is None:
        return []
    known, found = recorded(place, mark.tip), lock_blocks.read_blocks(place)
    wanted = found if stages is None else stages
    fresh = {name: found[name] for name in wanted if name in found and found[name] != known.get(name)}
    if fresh:
        run_dvc(place, "push", *fresh)
        order = lock_blocks.stage_names(place)
        entries = lock_blocks.merged(known, fresh, order)
        _record(place, mark.scenario, ", ".join(fresh), entries, mark.tip)
    return list(fresh)


def is_held(place: Path) -> bool:
    """Return whether this process has taken the slice."""
    return place in _held


def release(place: Path) -> None:
    """Let other processes of this machine take the slice."""
    if lock := _held.pop(place, None):
        lock.release()


def drop(root: Path, scenario: str) -> None:
    """Forget a scenario's slice: its ref in the remote repository, and its folder on this machine if it has one.

    Raises:
        SliceError: there is no such ref, or git failed.
    """
    remove(root, scenario)
    if folder := os.environ.get(MACHINE):
        shutil.rmtree(slice_folder(Path(folder), scenario), ignore_errors=True)
        git(root, "worktree", "prune")


def _hold(place: Path) -> None:
    """Keep other processes of this machine out of a slice until this one ends."""
    if place in _held:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise SliceError(f"another process of this machine works on {place.name}: wait for it or end it") from None
    _held[place] = lock


def _worktree(root: Path, place: Path, base: str, known: str) -> None:
    """Make the worktree, at `base`. One that another worker has overtaken is made anew."""
    mark = SliceMark.read(place)
    if place.exists() and (mark is None or mark.tip != known):
        shutil.rmtree(place)
    git(root, "worktree", "prune")
    if not place.exists():
        # force twice: a git that was killed here has left the worktree locked
        git(root, "worktree", "add", "--quiet", "--force", "--force", "--detach", str(place), base)
    Path(git(place, "rev-parse", "--absolute-git-dir"), "index.lock").unlink(missing_ok=True)  # of a killed git
    git(place, "checkout", "--quiet", "--force", "--detach", base)


def _record(place: Path, scenario: str, what: str, entries: Mapping[str, str], before: str, base: str = "") -> None:
    """Put a commit on the scenario's ref, and remember that it is this worker's."""
    SliceMark(scenario, record(place, scenario, what, entries, before, _worker(place), base)).write(place)


def _worker(place: Path) -> str:
    return f"{place.parents[1].name}@{socket.gethostname()}"
