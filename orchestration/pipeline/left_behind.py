"""Traces of killed processes that would stop DVC for ever, and their removal before the next command.

DVC writes two files in place, so a kill at the wrong moment leaves them empty or cut off: `.dvc/tmp/rwlock`, with the
files that running commands work on, and `dvc.lock`. A process that was killed may also stay in the process table as a
zombie if nobody asks for its exit status, as in a container whose first process does not; DVC takes it for alive.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from zc.lockfile import LockError, LockFile

from orchestration.pipeline.busy import BusyError

GUARD_SECONDS = 10  # DVC holds the guard of rwlock while it writes one small file
ENTRY = re.compile(r"^  \S[^\n]*:\n", re.MULTILINE)  # the first line of a stage in dvc.lock
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def mend(root: Path, besides: int) -> None:
    """Mend both files of the repository at `root`. The process `besides` may be a DVC that has not begun.

    Raises:
        BusyError: a file is damaged, and a DVC process still works in the repository.
    """
    mend_rwlock(root, besides)
    path = root / "dvc.lock"
    with held(path.parent / ".dvc" / "tmp" / "lock", GUARD_SECONDS):
        if path.exists() and read_whole(path.read_text(encoding="utf-8", errors="replace")) is None:
            mend_lock(path)


def mend_rwlock(root: Path, besides: int | None = None) -> None:
    """Mend `.dvc/tmp/rwlock` if it is damaged, or if it names zombies. `besides`: no DVC process, whatever its name.

    Raises:
        BusyError: it is damaged, and a DVC process still works in the repository.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    if _needs_nothing(path):
        return
    with held(path.with_name("rwlock.lock"), GUARD_SECONDS):  # nobody else is writing it now
        if _needs_nothing(path):
            return
        content = _read(path)
        if content is None:
            if working := [one for one in dvc_processes(root) if one != besides]:
                raise BusyError(
                    f"{path} is damaged, and DVC (process {working[0]}) works here: wait for it, or end it and delete "
                    f"{path}"
                )
            path.unlink()
            _say(f"{path} was damaged, as a killed process leaves it; no DVC works here, so it was deleted")
            return
        _write(path, _without_zombies(content))
        _say(f"{path} named processes that have ended and were never reaped; they were taken out")


def written_now(root: Path) -> list[str]:
    """Return the paths, relative to `root`, that a running DVC command may be writing."""
    content = _read(path) if (path := root / ".dvc" / "tmp" / "rwlock").exists() else None
    writing = [Path(one) for one, info in (content or {}).get("write", {}).items() if psutil.pid_exists(info["pid"])]
    return [one.relative_to(root.resolve()).as_posix() for one in writing if one.is_relative_to(root.resolve())]


def mend_lock(path: Path) -> bool:
    """Drop the last stage of a dvc.lock that is cut off. Call this under DVC's lock.

    DVC restores the stage from its cache. A file that is damaged elsewhere, such as one with two sides of a merge, is
    left alone.

    Returns:
        Whether the file was cut off, and is whole now.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    starts = [match.start() for match in ENTRY.finditer(text)]
    kept = text[: starts[-1]] if len(starts) > 1 else ""
    if kept and read_whole(kept) is None:
        return False
    if not starts and not "schema: '2.0'\nstages:\n".startswith(text):
        return False
    if kept:
        temporary = path.with_name(".dvc.lock.tmp")
        temporary.write_text(kept, encoding="utf-8")
        temporary.replace(path)
    else:
        path.unlink(missing_ok=True)
    _say(f"{path} was cut off, as a killed process leaves it; its last stage was dropped and comes back from the cache")
    return True


def read_whole(text: str) -> dict[str, Any] | None:
    """Return the content of a dvc.lock, or None if it is not whole: no YAML, or a stage without command or hashes."""
    try:
        content = yaml.load(text, Loader=YAML_LOADER)
        files = [one for stage in content["stages"].values() for one in (stage.get("deps", []) + stage.get("outs", []))]
        whole = all("cmd" in stage for stage in content["stages"].values()) and all("md5" in one for one in files)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None
    return dict(content) if whole else None


@contextmanager
def held(path: Path, seconds: float) -> Iterator[None]:
    """Hold one of DVC's locks during the block.

    Raises:
        BusyError: another process held it for `seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    while True:
        try:
            lock = LockFile(str(path))
            break
        except LockError:
            if time.monotonic() > deadline:
                raise BusyError(f"a DVC process holds {path} for more than {seconds:g} s: is one hanging?") from None
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.close()


def dvc_processes(root: Path) -> list[int]:
    """Return the ids of living DVC processes that work in the repository at `root`."""
    found, root = [], root.resolve()
    for process in psutil.process_iter():
        try:
            if not any(Path(word).name == "dvc" for word in process.cmdline()) or is_zombie(process.pid):
                continue
        except (psutil.Error, OSError):
            continue  # it ended meanwhile
        try:
            here = Path(process.cwd()).is_relative_to(root)
        except psutil.AccessDenied:
            here = True  # of another user: it may be
        except (psutil.Error, OSError):
            here = False
        found += [process.pid] if here else []
    return found


def is_zombie(pid: int) -> bool:
    """Return whether the process has ended and only keeps its number, since nobody asked for its exit status."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _needs_nothing(path: Path) -> bool:
    if not path.exists():
        return True
    content = _read(path)
    return content is not None and _without_zombies(content) == content


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a rwlock: what is read and what is written, by path. None if it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        reading, writing = content.get("read", {}), content.get("write", {})
        infos = [*(info for infos in reading.values() for info in infos), *writing.values()]
        if content.keys() - {"read", "write"} or any(type(info["pid"]) is not int for info in infos):
            return None
    except (ValueError, AttributeError, TypeError, KeyError):
        return None
    return dict(content)


def _without_zombies(content: Mapping[str, Any]) -> dict[str, Any]:
    reading = {
        path: alive
        for path, infos in content.get("read", {}).items()
        if (alive := [info for info in infos if not is_zombie(info["pid"])])
    }
    writing = {path: info for path, info in content.get("write", {}).items() if not is_zombie(info["pid"])}
    return {name: part for name, part in (("write", writing), ("read", reading)) if name in content}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name("rwlock.tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def _say(line: str) -> None:
    print(f"mended: {line}", file=sys.stderr, flush=True)
