"""The bytes of outputs and of DVC's cache, compared with the hashes that dvc.lock records.

DVC knows a file again by inode, size and time, and trusts its read-only cache, which may be the same inode (a hard
link). A byte that changes in place is therefore never noticed by DVC. A stage compares the content of all that it reads
before it starts; `audit`, `run --verify` and the nightly job `verify` compare everything. Each `run` looks for files
that changed in place (`orchestration.pipeline.in_place`).
"""

import configparser
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llbnad.errors import LlbnadError
from llbnad.utils.files import file_digest
from llbnad.utils.progress import track
from orchestration.pipeline import dvc, lock_blocks
from orchestration.pipeline.left_behind import YAML_LOADER, written_now
from orchestration.pipeline.paths import DATA, PARAMS


class DamagedError(LlbnadError):
    """Bytes on disk are not those that were recorded."""


@dataclass(frozen=True)
class Damage:
    """One file whose content is not what was recorded."""

    path: str  # relative to the repository's root
    recorded: str  # MD5
    found: str
    way_back: str  # commands that bring it back
    linked: bool = False  # the same inode as its copy in DVC's cache, so that this copy is damaged as well

    def __str__(self) -> str:
        told = f"its MD5 is {self.found}, recorded is {self.recorded}"
        return f"{self.path} is damaged: {told}. The way back: {self.way_back}"


def refuse_damaged_inputs(root: Path, stage: str, arguments: Sequence[str]) -> None:
    """Refuse to start a stage if an output of another stage that it reads is not what dvc.lock records.

    Args:
        root: root of the repository.
        stage: name of the stage in dvc.yaml.
        arguments: those of its command, which is the scenario or dataset and, for a sub-model, its number.

    Raises:
        DamagedError: a file is damaged, or was changed by hand.
    """
    wanted = _inputs(root, stage, arguments) if (root / "dvc.lock").exists() else []
    made = {name: lock_blocks.outputs(block) for name, block in lock_blocks.read_blocks(root).items()} if wanted else {}
    makers = [name for name, paths in made.items() if any(overlap(path, wanted) for path in paths)]
    if found := list(_damages(root, dvc.read_entries(root, *makers)["stages"], wanted)):
        raise DamagedError("; ".join(map(str, found)))


def damaged_outputs(root: Path) -> list[Damage]:
    """Return all damaged outputs, and damaged data that was put under DVC with `add`. Missing files are no damage.

    What a running stage writes is left out.
    """
    found: list[str] | None = None
    for _ in range(2):  # a stage may have ended between a look at dvc.lock and a look at its outputs
        stages = {**dvc.read_lock(root).get("stages", {}), **_added(root)}
        left_out, each = written_now(root), track(stages.items(), "check outputs", len(stages), unit="stage")
        damages = [one for name, entry in each for one in _damages(root, {name: entry}, found, left_out)]
        found = [damage.path for damage in damages]
        if not found:
            break
    return damages


def damaged_cache(root: Path) -> list[Damage]:
    """Return the files of DVC's cache whose content is not what their name says."""
    folder = cache_folder(root)
    found = []
    for path in track(sorted(folder.glob("[0-9a-f][0-9a-f]/*")), "check DVC's cache", unit="file"):
        recorded = path.parent.name + path.name.removesuffix(".dir")
        if re.fullmatch("[0-9a-f]{32}", recorded) and (actual := file_digest(path, "md5")) != recorded:
            way_back = f"`rm -f {_shown(path, root)}`, then `dvc repro` computes it again where it is needed"
            found.append(Damage(_shown(path, root), recorded, actual, way_back))
    return found


def refuse_damage(root: Path) -> None:
    """Compare all outputs and the whole cache.

    Raises:
        DamagedError: a file is damaged; the message lists all of them, one per line.
    """
    if found := [*damaged_outputs(root), *damaged_cache(root)]:
        raise DamagedError("\n".join([f"{len(found)} files are damaged", *map(str, found)]))


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache that holds files by their MD5."""
    place = "cache"
    for name in ("config", "config.local"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(root / ".dvc" / name)
        place = parser.get("cache", "dir", fallback=place)
    return root / ".dvc" / place / "files" / "md5"


def _inputs(root: Path, stage: str, arguments: Sequence[str]) -> list[str]:
    """Return the dependencies of a stage, as in dvc.yaml, whose path can be told from the stage's arguments."""
    content = yaml.load((root / "dvc.yaml").read_text(), Loader=YAML_LOADER)["stages"].get(stage, {})
    name = arguments[0] if arguments else ""
    known = {"key": name, "item.scenario": name, "item.stage": arguments[1] if len(arguments) > 1 else ""}
    entry = root / DATA / "params" / f"{name}.json"
    if entry.exists():
        known["item.dataset"] = json.loads(entry.read_text()).get("dataset", "")
    deps = [re.sub(r"\$\{([^}]+)\}", lambda found: known.get(found[1], found[0]), dep) for dep in _deps(content)]
    return [dep for dep in deps if "${" not in dep and dep != str(PARAMS)]


def _deps(stage: Mapping[str, Any]) -> list[str]:
    return [str(dep) for dep in stage.get("do", stage).get("deps", [])]


def _damages(
    root: Path, stages: Mapping[str, Any], wanted: Sequence[str] | None, left_out: Sequence[str] = ()
) -> Iterator[Damage]:
    """Yield the damaged files of all outputs, or of those that overlap with `wanted`."""
    for stage, entry in stages.items():
        for out in entry.get("outs", []):
            path, recorded = out["path"], out["md5"]
            if (wanted is not None and not overlap(path, wanted)) or overlap(path, left_out):
                continue
            for file, expected in recorded_files(root, path, recorded):
                if (wanted is None or overlap(file, wanted)) and (actual := _digest(root / file)) not in (
                    None,
                    expected,
                ):
                    yield damage_of(root, stage, path, file, expected, str(actual))


def damage_of(root: Path, stage: str, path: str, file: str, recorded: str, found: str) -> Damage:
    """Return the damage of a file of the output `path` of a stage, with the way back."""
    cached = _cached(root, recorded)
    linked = cached.is_file() and cached.samefile(root / file)
    return Damage(file, recorded, found, _way_back(root, stage, path, file, recorded), linked)


def recorded_files(root: Path, path: str, recorded: str) -> Iterator[tuple[str, str]]:
    """Yield the files of an output with their recorded MD5; a folder whose listing the cache lacks is one."""
    listing = _cached(root, recorded)
    if not recorded.endswith(".dir") or not listing.exists() or file_digest(listing, "md5") != recorded[:32]:
        yield path, recorded.removesuffix(".dir")
        return
    for one in json.loads(listing.read_bytes()):
        yield f"{path}/{one['relpath']}", one["md5"]


def _digest(path: Path) -> str | None:
    """Return the MD5 of a file, or of a folder as DVC makes it. None if there is neither."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.endswith(".tmp"))
        listing = [{"md5": file_digest(file, "md5"), "relpath": file.relative_to(path).as_posix()} for file in files]
        listing.sort(key=lambda one: one["relpath"])
        return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest()
    return file_digest(path, "md5") if path.is_file() else None


def _way_back(root: Path, stage: str, path: str, file: str, recorded: str) -> str:
    """Return the commands that bring a file back: from the cache if it is sound there, else from its stage."""
    cached = _cached(root, recorded)
    if (root / file).is_dir():
        return f"`rm -rf {file} && dvc repro {stage}`"
    if cached.is_file() and file_digest(cached, "md5") == recorded:
        return f"DVC's cache has the right one: `rm -f {file} && dvc checkout {path}`"
    again = (
        f"dvc repro {stage}"
        if stage
        else f"dvc pull {path}` or a copy of yours: no stage makes it, `dvc checkout {path}"
    )
    if not cached.is_file():
        return f"`rm -f {file} && {again}`"
    same = "is the same file, by a hard link" if cached.samefile(root / file) else "is damaged as well"
    return f"DVC's cache {same}, so delete both: `rm -f {file} {_shown(cached, root)} && {again}`"


def _added(root: Path) -> dict[str, Any]:
    """Return data that was put under DVC with `add`, in the form of stages of dvc.lock without a name."""
    found = []
    for record in sorted((root / DATA).rglob("*.dvc")):
        content = yaml.safe_load(record.read_text()) or {}
        folder = record.parent.relative_to(root)
        found += [{**out, "path": (folder / out["path"]).as_posix()} for out in content.get("outs", []) if "md5" in out]
    return {"": {"outs": found}}


def _cached(root: Path, recorded: str) -> Path:
    return cache_folder(root) / recorded[:2] / recorded[2:]


def _shown(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def overlap(path: str, others: Sequence[str]) -> bool:
    """Return whether a path is one of the others, or lies in it, or holds it."""
    return any(path == one or path.startswith(f"{one}/") or one.startswith(f"{path}/") for one in others)
