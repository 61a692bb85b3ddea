"""DVC, run as a command: list the stages, version data, and read outputs from dvc.lock.

DVC is installed in an environment of its own (see the Makefile), and its Python API is not thread-safe. This module
therefore runs the `dvc` command. DVC rewrites dvc.lock in place, so dvc.lock is only read under DVC's own lock.
"""

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llbnad.errors import LlbnadError
from orchestration.pipeline import lock_blocks, process
from orchestration.pipeline.busy import BusyError, retry_when_busy
from orchestration.pipeline.left_behind import YAML_LOADER, held, mend_lock, mend_rwlock, read_whole
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.process import environment

LOCK_SECONDS = 600  # DVC holds its lock while it hashes, which takes long for large data
STALE = " (if none is running any more, as after a power failure, delete .dvc/tmp/rwlock)"
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")  # DVC's words, from dvc/rwlock.py and dvc/lock.py

CUT_OFF = ("is invalid", "validation failed", "unable to read")

SHOWN_LINES = 25  # last lines of a failed command that are shown

NOT_KEPT = re.compile(r"failed to transfer '.*?' - (.+)")  # said of a file of a folder, with exit code 0

EXPANDS = {"foreach", "matrix"}  # keys of a stage that DVC expands


class DvcError(LlbnadError):
    """A dvc command failed; the message holds the end of what it printed."""


class DvcBusyError(DvcError, BusyError):
    """Another DVC process is at work on the same stage or the same files."""


@dataclass(frozen=True)
class Template:
    """One entry under `stages` in dvc.yaml, before DVC expands it over scenarios."""

    name: str
    desc: str
    meta: Mapping[str, Any]
    cmd: str
    code: str  # name of its code listing (`orchestration.pipeline.code`); empty for stage `code` itself
    over: str  # the section of params.yaml it is expanded over: datasets or scenarios; empty for a single stage


def templates(root: Path, file: str = "dvc.yaml") -> dict[str, Template]:
    """Return the stages as written in `file`, by name."""
    content = yaml.safe_load((root / file).read_text())["stages"]
    found = {}
    for name, stage in content.items():
        body = stage.get("do", stage)
        code = next((Path(dep).stem for dep in body["deps"] if dep.startswith("data/code/")), "")
        over = "datasets" if stage.get("foreach") == "${datasets}" else "scenarios" if stage.keys() & EXPANDS else ""
        found[name] = Template(name, body.get("desc", ""), body.get("meta", {}), body["cmd"], code, over)
    return found


def stage_graph(root: Path) -> dict[str, set[str]]:
    """Return every expanded stage (`sub_model@a-0`) with the stages that it depends on, as DVC sees them."""
    output = _checked(["dag", "--dot"], root)
    quoted = r'"([^"]+)"'
    graph: dict[str, set[str]] = {name: set() for name in re.findall(rf"^\s*{quoted};?\s*$", output, re.MULTILINE)}
    for upstream, downstream in re.findall(rf"{quoted}\s*->\s*{quoted}", output):
        graph.setdefault(upstream, set())
        graph.setdefault(downstream, set()).add(upstream)
    # data that was put under DVC with `dvc add` is a node of its own there, and no stage; a stage of another file than
    # the root's dvc.yaml is file:stage
    return {
        stage: {before for before in needed if not before.endswith(".dvc")}
        for stage, needed in graph.items()
        if not stage.endswith(".dvc") and ":" not in stage
    }


def scenario_graph(root: Path, scenario: str) -> dict[str, set[str]]:
    """Return `stage_graph` for one scenario. It takes the same time with a hundred scenarios as with one scenario."""
    params = yaml.load((root / PARAMS).read_text(), Loader=YAML_LOADER)
    own = params["scenarios"][scenario]
    dataset = own["dataset"]
    params |= {"scenarios": {scenario: own}, "datasets": {dataset: params["datasets"][dataset]}}
    with tempfile.TemporaryDirectory() as name:
        alone = Path(name)
        (alone / ".dvc").mkdir()
        (alone / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
        (alone / PARAMS).write_text(yaml.safe_dump(params, sort_keys=False))
        shutil.copy(root / "dvc.yaml", alone)
        return stage_graph(alone)


def read_lock(root: Path) -> dict[str, Any]:
    """Return the content of dvc.lock, read under DVC's lock; empty if there is no such file.

    Raises:
        BusyError: a DVC process kept its lock for too long.
        DvcError: the file is damaged, and not by a process that was killed while it wrote it.
    """
    file = root / "dvc.lock"
    with held(root / ".dvc" / "tmp" / "lock", LOCK_SECONDS):
        for _ in range(2):
            if not file.exists():
                return {}
            if (content := read_whole(file.read_text(encoding="utf-8", errors="replace"))) is not None:
                return content
            if not mend_lock(file):
                break
    raise DvcError(f"{file} is damaged: `git checkout dvc.lock` takes the committed one, `dvc repro` completes it")


def read_entries(root: Path, *stages: str) -> dict[str, Any]:
    """Return what `read_lock` returns, with no other entries than those of `stages`. The others are not parsed.

    Raises:
        BusyError: a DVC process kept its lock for too long.
    """
    blocks = lock_blocks.read_blocks(root)
    text = "".join(blocks.get(stage, "") for stage in stages)
    entries: dict[str, Any] = yaml.load(text, Loader=YAML_LOADER) if text else {}
    return {"stages": entries}


def outputs(lock: Mapping[str, Any], stage: str) -> dict[str, str]:
    """Return the MD5 of each output of a stage, by path; empty if the stage never ran."""
    return {out["path"]: out["md5"] for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}


def data_version(lock: Mapping[str, Any], stage: str) -> str:
    """Return one hash for all outputs of a stage: the hash of its only output, or a hash of (path, hash) pairs."""
    hashes = outputs(lock, stage)
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def tracked_version(root: Path, path: str) -> str | None:
    """Return the MD5 of data that was put under DVC with `add`, or None for other data."""
    file = root / f"{path}.dvc"
    return str(yaml.safe_load(file.read_text())["outs"][0]["md5"]) if file.exists() else None


@retry_when_busy
def add(root: Path, paths: Sequence[str]) -> None:
    """Version data that no stage makes. `<path>.dvc` beside the data holds its hash.

    Raises:
        BusyError: another process kept the files busy for too long.
        DvcError: dvc refused.
    """
    for path in paths:
        record = root / f"{path}.dvc"
        if record.exists() and record.stat().st_size == 0:
            record.unlink()  # a process was killed while it wrote it
    with running(["--wait-for-lock", "add", *paths], root) as started:
        assert started.stdout is not None
        lines = [line.rstrip() for line in started.stdout]
        code = started.wait()
    raise_if_failed(f"versioning {' and '.join(paths)}", lines, code, root)


def push(root: Path, targets: Sequence[str]) -> None:
    """Copy the data of `targets`, such as `data/own/bottle.dvc`, to DVC's default remote.

    Raises:
        DvcError: there is no remote, or it does not answer.
    """
    try:
        _checked(["push", "--quiet", *targets], root)
    except DvcBusyError:
        raise
    except DvcError as error:
        raise DvcError(
            f"{error}\nWorkers get data from DVC's default remote: `dvc remote list` shows whether there is one, "
            "`dvc remote add -d store URL` adds it"
        ) from None


def running(
    arguments: Sequence[str], root: Path, executable: str | None = None, **popen: Any
) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run dvc, or another `executable`, in a process session that ends with the block.

    Raises:
        BusyError: another process works here, and a third one left a damaged lock.
    """
    mend_rwlock(root)
    return process.running([executable or _executable(), *arguments], root, **popen)


def raise_if_failed(what: str, lines: Sequence[str], code: int, root: Path) -> None:
    """Raise `DvcError`, or `DvcBusyError`, if a dvc command that printed `lines` did not do its work."""
    said = "\n".join(lines)
    raise_if_not_kept(what, said)
    if code != 0:
        raise_if_busy(what, said, root)
        advice = STALE if "RWLock" in said else ""
        raise DvcError(f"{what} failed{advice}:\n" + "\n".join(lines[-SHOWN_LINES:]))


def raise_if_busy(what: str, said: str, root: Path) -> None:
    """Raise `DvcBusyError` if the output `said` of a dvc command means that trying again helps.

    Another process holds its files, or a killed one had left a dvc.lock that is cut off, which is whole now.
    """
    if any(words in said for words in BUSY):
        raise DvcBusyError(f"{what}: another process works on the same files{STALE}")
    if "dvc.lock" in said and any(words in said for words in CUT_OFF):
        with held(root / ".dvc" / "tmp" / "lock", LOCK_SECONDS):
            if mend_lock(root / "dvc.lock"):
                raise DvcBusyError(f"{what}: dvc.lock was cut off")


def raise_if_not_kept(what: str, said: str) -> None:
    """Raise `DvcError` if a dvc command could not copy outputs into its cache, as on a full disk.

    DVC records such outputs, and may end with exit code 0.
    """
    if reasons := NOT_KEPT.findall(said):
        raise DvcError(
            f"{what}: {len(reasons)} files did not get into DVC's cache ({reasons[0].strip()}): make room on that "
            "disk, then run the same command again"
        )


@retry_when_busy
def _checked(arguments: list[str], root: Path) -> str:
    done = subprocess.run([_executable(), *arguments], cwd=root, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise_if_busy(f"`dvc {' '.join(arguments)}`", done.stderr, root)
        raise DvcError(f"`dvc {' '.join(arguments)}` failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _executable() -> str:
    found = shutil.which("dvc", path=environment()["PATH"])
    if found is None:
        raise DvcError("the dvc command is not installed: run `make setup`")
    return found
