"""Handing on what an ingest took in to other machines: bytes to DVC's remote, their record to the branch in git.

Only a line's own files and params.yaml are committed, whatever else has changed in the repository. Bytes go first, so
that whoever sees the record can get them. All of it may be repeated: what is there already is left alone.
"""

from pathlib import Path

from filelock import FileLock

from llbnad.errors import LlbnadError
from orchestration.line.arrivals import LineFolders
from orchestration.pipeline import dvc
from orchestration.pipeline.git import run_git, said_by
from orchestration.pipeline.paths import PARAMS, review_file

AUTHOR = ("-c", "user.name=llbnad", "-c", "user.email=llbnad@localhost")


class ShareError(LlbnadError):
    """Other machines cannot get what was taken in. It is safe at home; the next ingest tries again."""


def share(root: Path, line: str) -> bool:
    """Push a line's images and their record. Return whether there was anything new to commit.

    Args:
        root: root of the repository at home, on the branch that workers take.
        line: name of the line.

    Raises:
        DvcError: DVC has no remote, or it does not answer.
        ShareError: git refused.
    """
    places = LineFolders(root, line)
    records = [path.with_name(f"{path.name}.dvc") for path in (places.arrived, places.report)]
    there = [path.relative_to(root).as_posix() for path in (*records, root / review_file(line)) if path.exists()]
    tracked = [path for path in there if path.endswith(".dvc")]
    if not tracked:
        return False  # the line has no image yet
    dvc.push(root, tracked)
    wanted = [str(PARAMS), *there]
    with FileLock(root / ".dvc" / "tmp" / "share.lock"):  # lines are taken in side by side, git has one index
        _git(root, "add", "--", *wanted)
        changed = bool(_git(root, "status", "--porcelain", "--", *wanted))
        if changed:
            _git(root, *AUTHOR, "commit", "--quiet", "--message", f"{line}: images taken in", "--", *wanted)
        _git(root, "push", "--quiet", "origin", "HEAD")
    return changed


def _git(root: Path, *arguments: str) -> str:
    done = run_git(root, *arguments)
    if done.returncode != 0:
        command = next(word for word in arguments if word in ("add", "status", "commit", "push"))
        said = said_by(done)[:500]
        remedy = ": `git pull --rebase`, then materialise `ingest` again" if "rejected" in said else ""
        raise ShareError(f"`git {command}` failed, so workers do not have the new images yet{remedy} ({said})")
    return done.stdout.strip()
