"""dvc.lock as blocks of text, one per stage, and the union of several.

DVC writes each stage as a block of lines indented by two. An entry depends on the stage alone, not on what else stands
in dvc.yaml or params.yaml, so the blocks of a slice are those of the whole, byte for byte. Putting blocks together
keeps their bytes; loading and dumping YAML would not.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from llbnad.errors import LlbnadError
from llbnad.utils.files import replacing
from orchestration.pipeline.left_behind import YAML_LOADER, held, mend_lock, read_whole
from orchestration.pipeline.paths import PARAMS

HEAD = "schema: '2.0'\nstages:\n"
STAGE_NAME = re.compile(r"  (\S+):\n")
PATH = re.compile(r"^    - path: (.+)$", re.MULTILINE)
SMALL = 2**17  # bytes: loading the YAML of a slice takes milliseconds, that of 120 scenarios seconds
LOCK_SECONDS = 600  # DVC holds its lock while it hashes


class DisagreementError(LlbnadError):
    """Two slices have different entries for the same stage."""


def blocks(text: str, source: object = "dvc.lock") -> dict[str, str]:
    """Return the entries of a dvc.lock as text, by stage, in their order.

    Raises:
        DisagreementError: the text is no dvc.lock as DVC writes it.
    """
    if not text:
        return {}
    found = {}
    for block in filter(None, re.split(r"(?m)^(?=  \S)", text.removeprefix(HEAD))):
        name = STAGE_NAME.match(block)
        if name is None or not text.startswith(HEAD) or not block.endswith("\n"):
            raise DisagreementError(
                f"{source} is not as DVC writes it, near {block[:40]!r}: `dvc repro` there writes it anew"
            )
        found[name[1]] = block
    return found


def joined(found: Mapping[str, str]) -> str:
    """Return the text of the dvc.lock with these entries; empty without entries."""
    return HEAD + "".join(found.values()) if found else ""


def read_blocks(root: Path) -> dict[str, str]:
    """Return the entries of the dvc.lock at `root`, read under DVC's lock. One that a kill cut off is mended."""
    with held(root / ".dvc" / "tmp" / "lock", LOCK_SECONDS):
        return _read(root / "dvc.lock")


def write_blocks(root: Path, found: Mapping[str, str]) -> None:
    """Write the dvc.lock at `root`, under DVC's lock. Without entries there is none."""
    with held(root / ".dvc" / "tmp" / "lock", LOCK_SECONDS):
        _write(root / "dvc.lock", found)


def update(root: Path, fresh: Mapping[str, str], order: Iterable[str], first: Iterable[str] | None = None) -> list[str]:
    """Replace or add entries in the dvc.lock at `root`, under DVC's lock: see `merged`.

    Returns:
        The stages whose entry has changed.
    """
    with held(root / ".dvc" / "tmp" / "lock", LOCK_SECONDS):
        known = _read(root / "dvc.lock")
        changed = [name for name, block in fresh.items() if known.get(name) != block]
        if changed:
            _write(root / "dvc.lock", merged(known, fresh, order, first))
    return changed


def paths(block: str) -> list[str]:
    """Return the paths of all dependencies and outputs of an entry."""
    return [one.strip("'\"") for one in PATH.findall(block)]


def outputs(block: str) -> list[str]:
    """Return the paths of the outputs of an entry."""
    _, _, outs = block.partition("\n    outs:\n")
    return paths(outs)


def union(slices: Mapping[str, Mapping[str, str]], left_out: Iterable[str] = ()) -> dict[str, str]:
    """Return the entries of all slices.

    Args:
        slices: entries by stage, by name of the slice.
        left_out: stages that differ between slices by nature, and are nobody's.

    Raises:
        DisagreementError: two slices have different entries for the same stage.
    """
    all_: dict[str, str] = {}
    owner: dict[str, str] = {}
    skipped = {*left_out}
    for name, entries in slices.items():
        for stage, block in entries.items():
            if stage in skipped:
                continue
            if all_.setdefault(stage, block) != block:
                first = owner[stage]
                raise DisagreementError(
                    f"slices {first} and {name} disagree about stage {stage}: one of them is older than the images, "
                    f"settings or code that both read. Work both again: python -m orchestration slices work "
                    f"{first} {name}"
                )
            owner.setdefault(stage, name)
    return all_


def merged(
    known: Mapping[str, str], fresh: Mapping[str, str], order: Iterable[str], first: Iterable[str] | None = None
) -> dict[str, str]:
    """Return the entries as one machine's DVC records them: a known stage keeps its place, a new one goes to the end.

    Args:
        known: entries that were there.
        fresh: entries that replace these or are added.
        order: all stages, in the order in which DVC runs them.
        first: the stages that keep their place, if not all of `known`: those before the first of several calls.
    """
    rank = {stage: number for number, stage in enumerate(order)}
    entries = {**known, **fresh}
    kept = [stage for stage in (known if first is None else first) if stage in entries]
    added = sorted(entries.keys() - {*kept}, key=lambda stage: (rank.get(stage, len(rank)), stage))
    return {stage: entries[stage] for stage in [*kept, *added]}


def stage_names(root: Path) -> list[str]:
    """Return the names of all stages of the repository at `root`, in the order in which DVC runs them.

    dvc.yaml names them in an order in which each comes after the stages that it needs.
    """
    return expanded(read(root / "dvc.yaml")["stages"], read(root / PARAMS))


def stages_of(root: Path, scenario: str) -> list[str]:
    """Return the names of all stages that a slice of the scenario has, those that serve all scenarios included."""
    content = read(root / PARAMS)
    alone = {"scenarios": [scenario], "datasets": [content["scenarios"][scenario]["dataset"]]}
    return expanded(read(root / "dvc.yaml")["stages"], {**content, **alone})


def expanded(stages: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """Return the names of the stages of dvc.yaml, expanded over the content of params.yaml."""

    def values(over: Any) -> list[str]:
        return [str(one) for one in (params[over[2:-1]] if isinstance(over, str) else over)]

    found: list[str] = []
    for name, stage in stages.items():
        if "foreach" in stage:
            found += [f"{name}@{one}" for one in values(stage["foreach"])]
        elif "matrix" in stage:
            several = itertools.product(*map(values, stage["matrix"].values()))
            found += [f"{name}@{'-'.join(one)}" for one in several]
        else:
            found.append(name)
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file that DVC reads."""
    return dict(yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER))


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text.endswith("\n") or (len(text) < SMALL and not _is_whole(text)):
        mend_lock(file)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
    return blocks(text, file)


@lru_cache(maxsize=4)
def _is_whole(text: str) -> bool:
    """Return whether a dvc.lock is whole. A run reads it once per stage, most often unchanged."""
    return read_whole(text) is not None


def _write(file: Path, found: Mapping[str, str]) -> None:
    if found:
        with replacing(file) as temporary:
            temporary.write_text(joined(found), encoding="utf-8")
    else:
        file.unlink(missing_ok=True)
