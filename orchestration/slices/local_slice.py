"""Slices on one machine: a scenario is worked in a small folder of its own below .dvc/tmp/slices, then collected.

DVC reads and writes everything for each stage, so a second of work costs 20 to 50 among 120 scenarios; in a slice it
costs a second. The folder of a slice holds links to all that lies in the workspace, beside a params.yaml with one
scenario, a dvc.lock and outputs of its own. DVC's cache and the feature cache are the workspace's. What a slice made is
put into the workspace by hard links, and its entries into the workspace's dvc.lock, as one `dvc repro` would have.

The stages `code` and `params` serve all scenarios. They run in a folder of their own, whose dvc.yaml has nothing else.
"""

import configparser
import filecmp
import io
import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from llbnad.errors import ConfigError
from llbnad.utils.files import replacing
from orchestration.pipeline import code, lock_blocks, settings
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import DATA, FEATURE_CACHE, PARAMS, STAGES
from orchestration.pipeline.verify import cache_folder
from orchestration.slices.data import run_dvc, under_dvc
from orchestration.slices.params import slice_params

FOLDER = Path(".dvc") / "tmp" / "slices"
SHARED = (code.STAGE, settings.SPLIT)  # stages that serve all scenarios; a slice has entries of its own of them
SHARED_SLICE = "_shared"  # no scenario is called so
OWN = {"data", "dvc.lock", "dvc.yaml", str(PARAMS)}  # what a slice has of its own; everything else is linked


def open_slice(root: Path, scenario: str, params: Params) -> Path:
    """Make or renew the folder of a scenario's slice and return it. Its dvc.lock begins with the workspace's entries.

    Raises:
        ConfigError: a path that the scenario reads leaves the workspace, so it would be another one in a slice.
        DvcError: the data set is under DVC, and could not be brought from DVC's cache.
    """
    own = params.scenario(scenario)
    place = root / FOLDER / scenario
    text, _ = slice_params((root / PARAMS).read_text(encoding="utf-8"), scenario)
    _prepare(root, place, text, (root / "dvc.yaml").read_text(encoding="utf-8"))
    images = Path(params.dataset(own.dataset).root)
    if not (root / images).exists() and under_dvc(root, images):
        run_dvc(root, "checkout", str(images))
    mask = own.region.mask if own.region else None
    for path in (images, Path(own.review), *([Path(mask)] if mask else [])):
        _link(root, place, path)
    if not (place / "dvc.lock").exists():
        names = {*lock_blocks.stage_names(place)} - {*SHARED}
        known = {name: block for name, block in lock_blocks.read_blocks(root).items() if name in names}
        lock_blocks.write_blocks(place, known)
    return place


def open_shared(root: Path) -> tuple[Path, list[str]]:
    """Make or renew the folder in which the stages that serve all scenarios run.

    Returns:
        The folder, and the stages that the workspace's dvc.lock has now.
    """
    place = root / FOLDER / SHARED_SLICE
    stages = lock_blocks.read(root / "dvc.yaml")["stages"]
    trimmed = yaml.safe_dump({"stages": {name: stages[name] for name in SHARED}}, sort_keys=False)
    _prepare(root, place, (root / PARAMS).read_text(encoding="utf-8"), trimmed)
    for name in SHARED:
        source, target = root / DATA / name, place / DATA / name
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target)  # what is up to date, DVC need not bring from its cache
    known = lock_blocks.read_blocks(root)
    lock_blocks.write_blocks(place, {name: known[name] for name in SHARED if name in known})
    return place, list(known)


def bring_home(
    root: Path, place: Path, stages: Iterable[str], order: Iterable[str], first: Iterable[str] | None = None
) -> list[str]:
    """Put what a slice made into the workspace: outputs by links, entries into dvc.lock. Return the changed stages.

    Args:
        root: root of the workspace.
        place: folder of the slice.
        stages: the stages to take.
        order: all stages of the workspace, in dvc.yaml's order.
        first: the stages that keep their place in dvc.lock: see `lock_blocks.merged`.
    """
    found = lock_blocks.read_blocks(place)
    fresh = {name: found[name] for name in stages if name in found}
    for block in fresh.values():
        for path in lock_blocks.outputs(block):
            _bring(place / path, root / path)
    return lock_blocks.update(root, fresh, order, first)


def _prepare(root: Path, place: Path, params: str, dvc_yaml: str) -> None:
    """Make the folder: links to the workspace, its own params.yaml and dvc.yaml, a DVC repository in the same cache."""
    (place / ".dvc" / "tmp").mkdir(parents=True, exist_ok=True)
    (place / DATA).mkdir(exist_ok=True)
    (root / FEATURE_CACHE).mkdir(parents=True, exist_ok=True)
    outputs = {str(DATA / name) for name in (*SHARED, *STAGES)}
    entries = [*root.iterdir(), *(root / DATA).iterdir()]
    wanted = {path.relative_to(root) for path in entries if path.suffix != ".dvc" and not path.name.startswith(".")}
    wanted.add(Path(".dvcignore"))
    for path in wanted:
        if path.as_posix() not in OWN | outputs and (root / path).exists():
            _link(root, place, path)
    for folder in (place, place / DATA):
        for link in folder.iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink()  # it is gone from the workspace
    _write(place / PARAMS, params)
    _write(place / "dvc.yaml", dvc_yaml)
    config = configparser.ConfigParser(interpolation=None)
    config.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    cache = cache_folder(root).parents[1].resolve()
    config.read_dict({"core": {"no_scm": "true", "site_cache_dir": str((place / ".dvc" / "tmp" / "site").resolve())}})
    config.read_dict({"cache": {"dir": str(cache)}})
    stream = io.StringIO()
    config.write(stream)
    _write(place / ".dvc" / "config", stream.getvalue())


def _link(root: Path, place: Path, path: Path) -> None:
    """Link a path of the workspace into a slice, unless a folder above it is linked already."""
    if path.is_absolute():
        return
    if ".." in path.parts:
        raise ConfigError(f"{PARAMS}: the path {path} leaves the repository; name it from / or link it below data/")
    target = place / path
    if target.is_symlink() or any((place / above).is_symlink() for above in path.parents):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to((root / path).absolute())


def _write(path: Path, text: str) -> None:
    """Write a file as a whole and only if its content differs: a dvc of this slice may be at work."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _bring(source: Path, target: Path) -> None:
    """Make `target`, a file or folder, equal to `source` by hard links, or by copies where there are none."""
    if source.is_dir():
        wanted = {path.relative_to(source) for path in source.rglob("*")}
        if target.is_dir():
            for path in sorted(target.rglob("*"), reverse=True):
                if path.relative_to(target) not in wanted and path.name != ".gitignore":
                    path.rmdir() if path.is_dir() else path.unlink()
        elif target.exists():
            target.unlink()
        target.mkdir(parents=True, exist_ok=True)
        for path in wanted:
            if (source / path).is_dir():
                (target / path).mkdir(parents=True, exist_ok=True)
            else:
                _bring(source / path, target / path)
    elif not (target.is_file() and (source.samefile(target) or filecmp.cmp(source, target, shallow=False))):
        if target.is_dir():
            shutil.rmtree(target)
        with replacing(target) as temporary:
            try:
                temporary.hardlink_to(source)
            except OSError:
                shutil.copy2(source, temporary)
