"""The records of slices in git: one ref per scenario in the remote repository.

A commit of a slice holds the code, a params.yaml with one scenario, and a dvc.lock with the stages whose bytes are in
DVC's remote. A push names the commit that the worker left on the ref (git's lease) and is refused if anything else is
there: a worker that was overtaken, or whose slice was dropped, cannot write.
"""

import io
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from llbnad.errors import LlbnadError
from orchestration.pipeline import lock_blocks
from orchestration.pipeline.git import run_git, said_by
from orchestration.pipeline.paths import PARAMS

REFS = "refs/llbnad"  # in the remote repository
KNOWN = "refs/remotes/llbnad"  # what this clone knows of them, where `dvc gc --all-commits` sees them
MAIN = "refs/remotes/llbnad-home"  # the tip of the remote's default branch
LOCK = "dvc.lock"


class SliceError(LlbnadError):
    """A slice cannot be taken or published."""


class NoDataError(SliceError):
    """Workers cannot get what a slice needs; the message says what to do. Do not try again before."""


class OvertakenError(SliceError):
    """Another worker has taken the scenario over, or its slice was dropped. Do not try again."""


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep all other processes that work with slices out of this clone: git fails if a ref changes under a fetch.

    Args:
        root: the clone, or a worktree of it. Whoever has it alone may ask again.
    """
    shared = root / git(root, "rev-parse", "--git-common-dir")
    with FileLock(shared / "llbnad.lock", is_singleton=True):
        for left in [shared / f"{MAIN}.lock", *(shared / KNOWN).rglob("*.lock")]:  # of a git that was killed here
            left.unlink(missing_ok=True)
        yield


def fetch(root: Path) -> None:
    """Fetch the remote's default branch and all slices.

    Raises:
        SliceError: git failed.
    """
    with alone(root):
        git(root, "fetch", "--quiet", "--prune", "origin", f"+HEAD:{MAIN}", f"+{REFS}/*:{KNOWN}/*")


def tip(root: Path, scenario: str) -> str:
    """Return the commit on a scenario's ref as it was fetched; empty if there is none."""
    return run_git(root, "rev-parse", "--quiet", "--verify", f"{KNOWN}/{scenario}").stdout.strip()


def recorded(root: Path, commit: str) -> dict[str, str]:
    """Return the entries of dvc.lock in a commit; empty if it has none."""
    done = run_git(root, "cat-file", "blob", f"{commit}:{LOCK}")
    return lock_blocks.blocks(done.stdout, f"{LOCK} in {commit}") if done.returncode == 0 else {}


def record(
    place: Path, scenario: str, what: str, entries: Mapping[str, str], before: str, by: str, base: str = ""
) -> str:
    """Commit the slice's params.yaml and these entries, and push the commit to the scenario's ref.

    Args:
        place: worktree of the slice.
        scenario: name of the slice.
        what: message of the commit.
        entries: those of dvc.lock whose bytes are in DVC's remote.
        before: the commit that has to be on the ref, which becomes the new one's parent; empty if there must be none.
        by: the machine that the record names.
        base: another parent, such as the commit whose code the slice takes.

    Returns:
        The commit.

    Raises:
        OvertakenError: something else is on the ref. Nothing has changed.
        SliceError: git failed.
    """
    git(place, "add", "--force", str(PARAMS))
    if entries:
        blob = git(place, "hash-object", "-w", "--stdin", given=lock_blocks.joined(entries))
        git(place, "update-index", "--add", "--cacheinfo", f"100644,{blob},{LOCK}")
    else:
        git(place, "rm", "--quiet", "--cached", "--ignore-unmatch", LOCK)
    author = ["-c", f"user.name={by}", "-c", f"user.email=llbnad@{socket.gethostname()}"]
    above = [word for parent in (base, before) if parent for word in ("-p", parent)]
    new = git(place, *author, "commit-tree", git(place, "write-tree"), "-m", f"{scenario}: {what}", *above)
    lease = f"--force-with-lease={REFS}/{scenario}:{before}"
    pushed = run_git(place, "push", "--porcelain", lease, "origin", f"{new}:{REFS}/{scenario}")
    if pushed.returncode != 0:
        said = " ".join((pushed.stdout + pushed.stderr).split())
        if "rejected]" in said:
            raise OvertakenError(
                f"another worker has taken {scenario} over, or its slice was dropped ({REFS}/{scenario} is not as "
                "this worker left it): what this one computes is not recorded any more"
            )
        raise SliceError(f"`git push origin … {REFS}/{scenario}` failed: {said}")
    git(place, "reset", "--quiet", "--soft", new)
    with alone(place):
        git(place, "update-ref", f"{KNOWN}/{scenario}", new)
    return new


def remove(root: Path, scenario: str) -> None:
    """Delete a scenario's ref in the remote repository.

    Raises:
        SliceError: there is no such ref, or git failed.
    """
    with alone(root):
        fetch(root)
        if not tip(root, scenario):
            raise SliceError(f"the remote repository has no slice of {scenario}: `… slices status` lists those it has")
        git(root, "push", "--quiet", "origin", f":{REFS}/{scenario}")
        git(root, "update-ref", "-d", f"{KNOWN}/{scenario}")


@dataclass(frozen=True)
class SliceRecord:
    """A slice as the remote repository knows it."""

    scenario: str
    by: str  # the machine that wrote it last
    when: str  # ISO 8601, with the time zone
    what: str  # the stages that it wrote last
    entries: Mapping[str, str]  # of dvc.lock, by stage


def records(root: Path) -> list[SliceRecord]:
    """Return all slices as they were fetched, by name."""
    form = "%(refname:lstrip=3)%09%(authorname)%09%(committerdate:iso-strict)%09%(contents:subject)"
    rows = [line.split("\t", 3) for line in git(root, "for-each-ref", f"--format={form}", KNOWN).splitlines()]
    if not rows:
        return []
    wanted = "".join(f"{KNOWN}/{row[0]}:{LOCK}\n" for row in rows)
    found, texts = io.BytesIO(git(root, "cat-file", "--batch", given=wanted).encode() + b"\n"), []
    while head := found.readline():
        if head.rstrip().endswith(b"missing"):
            texts.append("")
            continue
        texts.append(found.read(int(head.split()[2])).decode())
        found.readline()  # the line's end after the content
    return [
        SliceRecord(
            scenario, by, when, what.partition(": ")[2], lock_blocks.blocks(text, f"{LOCK} of slice {scenario}")
        )
        for (scenario, by, when, what), text in zip(rows, texts, strict=True)
    ]


def git(root: Path, *arguments: str, given: str | None = None) -> str:
    """Run git in `root`, with `given` as its standard input, and return what it prints, without the last line's end.

    Raises:
        SliceError: git failed; the message holds what it said.
    """
    done = run_git(root, *arguments, given=given)
    if done.returncode != 0:
        raise SliceError(f"`git {' '.join(arguments[:3])} …` in {root} failed: {said_by(done)}")
    return done.stdout.rstrip("\n") if arguments[0] != "show" else done.stdout
