"""DVC, driven as a command: which stages there are, reproduce one, and what dvc.lock says came out.

DVC lives in an environment of its own (see the Makefile) and its Python API is not thread-safe, so this module runs
the `dvc` command. dvc.lock is rewritten in place, hence only read under DVC's own lock.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from zc.lockfile import LockError, LockFile

from llbnad.errors import LlbnadError
from orchestration.pipeline.paths import PARAMS

LOCK_SECONDS = 600  # DVC holds its lock while it hashes, which takes long for large data
STALE = " (if none is running any more, as after a power failure, delete .dvc/tmp/rwlock)"
ADD_ATTEMPTS, ADD_SECONDS = 120, 5  # a stage may be reading the same images
TERMINATE_SECONDS = 15  # a stage that is told to end gets this long before it is killed

EXPANDS = {"foreach", "matrix"}  # keys of a stage that DVC expands

Outcome = Literal["ran", "restored from cache", "unchanged"]
OUTCOMES: dict[str, Outcome] = {
    r"Running stage '": "ran",
    r"is cached - skipping run": "restored from cache",
    r"didn't change, skipping": "unchanged",
}


class DvcError(LlbnadError):
    """A dvc command failed; the message holds the end of what it printed."""


class BusyError(DvcError):
    """Another process is working on the same stage or the same files: try again later."""


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
    """The stages as written in `file`, by name."""
    content = yaml.safe_load((root / file).read_text())["stages"]
    found = {}
    for name, stage in content.items():
        body = stage.get("do", stage)
        code = next((Path(dep).stem for dep in body["deps"] if dep.startswith("data/code/")), "")
        over = "datasets" if stage.get("foreach") == "${datasets}" else "scenarios" if stage.keys() & EXPANDS else ""
        found[name] = Template(name, body.get("desc", ""), body.get("meta", {}), body["cmd"], code, over)
    return found


def stage_graph(root: Path) -> dict[str, set[str]]:
    """Every expanded stage (`sub_model@a-0`) and the stages it depends on, as DVC sees them."""
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
    """`stage_graph` of a repository with this scenario only: as quick with a hundred scenarios as with one."""
    params = yaml.load((root / PARAMS).read_text(), Loader=_YAML_LOADER)
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
    """The content of dvc.lock, read under DVC's lock; empty if there is none yet.

    Raises:
        DvcError: a DVC process kept its lock for too long.
    """
    path = root / ".dvc" / "tmp" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            lock = LockFile(str(path))
            break
        except LockError:
            if time.monotonic() > deadline:
                raise DvcError(f"a DVC process holds {path} for more than {LOCK_SECONDS} s: is one hanging?") from None
            time.sleep(0.05)
    try:
        file = root / "dvc.lock"
        return (yaml.load(file.read_text(), Loader=_YAML_LOADER) or {}) if file.exists() else {}
    finally:
        lock.close()


def outputs(lock: Mapping[str, Any], stage: str) -> dict[str, str]:
    """MD5 of each of a stage's outputs by path; empty if it never ran."""
    return {out["path"]: out["md5"] for out in lock.get("stages", {}).get(stage, {}).get("outs", [])}


def data_version(lock: Mapping[str, Any], stage: str) -> str:
    """One hash for all outputs of a stage: the output's own if it is one, else the hash of (path, hash) pairs."""
    hashes = outputs(lock, stage)
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def tracked_version(root: Path, path: str) -> str | None:
    """MD5 of data put under DVC with `add`, None if it is not."""
    file = root / f"{path}.dvc"
    return str(yaml.safe_load(file.read_text())["outs"][0]["md5"]) if file.exists() else None


def repro_stage(root: Path, stage: str, log: Callable[[str], None]) -> Outcome:
    """Reproduce one stage, not those before it; its lines go to `log` as they come.

    The command gets a session of its own. Whatever interrupts this function ends the whole session, so that no stage
    goes on computing after its run was cancelled.

    Raises:
        BusyError: another process works on the same files.
        DvcError: the stage failed.
    """
    text = _logged(["repro", "--single-item", stage], root, f"stage {stage}", log)
    for pattern, outcome in OUTCOMES.items():
        if re.search(pattern, text):
            return outcome
    raise DvcError(f"dvc said nothing known about stage {stage}:\n{text}")


def add(root: Path, paths: Sequence[str]) -> None:
    """Version data that no stage makes: `<path>.dvc` beside it holds its hash.

    Raises:
        DvcError: dvc refused, or another process kept the files busy.
    """
    for attempt in range(1, ADD_ATTEMPTS + 1):
        try:
            _logged(["add", *paths], root, f"versioning {' and '.join(paths)}", lambda line: None)
            return
        except BusyError:
            if attempt == ADD_ATTEMPTS:
                raise
            time.sleep(ADD_SECONDS)


def _logged(arguments: list[str], root: Path, what: str, log: Callable[[str], None]) -> str:
    """Run dvc, waiting for its lock; everything it prints, which also goes to `log` as it comes."""
    lines = []
    with running(["--wait-for-lock", *arguments], root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            log(lines[-1])
        code = process.wait()
    if code != 0:
        if any("is busy" in line for line in lines):
            raise BusyError(f"{what}: another process works on the same files{STALE}")
        advice = STALE if any("RWLock" in line for line in lines) else ""
        raise DvcError(f"{what} failed{advice}:\n" + "\n".join(lines[-25:]))
    return "\n".join(lines)


@contextmanager
def running(
    arguments: list[str], root: Path, executable: str | None = None, **popen: Any
) -> Iterator[subprocess.Popen[str]]:
    """A command, dvc unless told, in a session of its own, which does not outlive the block."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **popen}
    process = subprocess.Popen(
        [executable or _executable(), *arguments],
        cwd=root,
        env=environment(),
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _end_session(process)


def environment() -> dict[str, str]:
    """Environment of dvc: its stages' `python` is this one, and their output comes line by line."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def _end_session(process: subprocess.Popen[str]) -> None:
    """SIGTERM to all its processes, so that a stage removes its temporary files; SIGKILL to those that stay."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + TERMINATE_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # reaps the leader, which would count as alive otherwise
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # all have ended
    process.wait()


def _checked(arguments: list[str], root: Path) -> str:
    done = subprocess.run([_executable(), *arguments], cwd=root, env=environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise DvcError(f"`dvc {' '.join(arguments)}` failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _executable() -> str:
    found = shutil.which("dvc", path=environment()["PATH"])
    if found is None:
        raise DvcError("the dvc command is not installed: run `make setup`")
    return found


_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
