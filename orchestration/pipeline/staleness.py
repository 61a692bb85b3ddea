"""Which stages are up to date, stale or never ran, as `dvc repro` would find them, and why.

DVC tells which stages have a change of their own. What a change reaches is known exactly for the three stages that only
copy from the code and params.yaml, since what they would write is computed here. A stage after another one that is
stale is stale too, though `dvc repro` leaves it alone if the other one writes the same bytes again.

One stage `params` splits params.yaml for all scenarios. It is stale for those alone whose own file would get another
content, so that an edit of one scenario makes no other one stale.
"""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestration.pipeline import code, dvc, lock_blocks, settings
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.stage_settings import files

Freshness = Literal["up to date", "stale", "never ran"]
COPIES = (code.STAGE, settings.SPLIT, settings.STAGE)  # stages whose outputs are computed here to be compared
IS_STALE = " is stale"
SHOWN_NAMES = 4  # settings or modules in a reason, stages in a few words
SHOWN_REASONS = 3  # changes in a few words


@dataclass(frozen=True)
class StageState:
    """The state of a stage; a stale one has the reasons, such as `selection of a20 in params.yaml`."""

    freshness: Freshness
    because: tuple[str, ...] = ()


def states(root: Path, params: Params, scenarios: Sequence[str]) -> dict[str, dict[str, StageState]]:
    """Return the state of each stage of each scenario, causes first. Nothing runs and nothing is written.

    Args:
        root: root of the repository.
        params: content of its params.yaml.
        scenarios: names of scenarios.

    Raises:
        DvcBusyError: another process works on the same files.
        DvcError: DVC refuses the pipeline, for example because params.yaml is wrong.
    """
    wanted = {scenario: {*lock_blocks.stages_of(root, scenario)} for scenario in scenarios}
    stages = [stage for stage in lock_blocks.stage_names(root) if any(stage in own for own in wanted.values())]
    blocks = lock_blocks.read_blocks(root)
    known = [stage for stage in stages if stage in blocks]
    own_changes = changed(root, known) if known else {}
    edited = {path.as_posix(): f"code: {_shortened(names)}" for path, names in code.differences(root).items()}
    found = {}
    for scenario, own in wanted.items():
        copies = {**edited, **_outdated_settings(root, params, scenario)}
        found[scenario] = propagated([stage for stage in stages if stage in own], blocks, own_changes, copies)
    return found


def propagated(
    stages: Iterable[str],
    blocks: Mapping[str, str],
    changed: Mapping[str, Sequence[str]],
    copies: Mapping[str, str],
) -> dict[str, StageState]:
    """Return the state of each stage, given the stages in which DVC finds a change.

    Args:
        stages: names, causes before what depends on them.
        blocks: entries of dvc.lock by stage (`lock_blocks`).
        changed: changes in DVC's words by stage that has some of its own.
        copies: outputs of the stages `COPIES` that would get another content, with what makes the difference.
    """
    found, renewed = dict[str, StageState](), {**copies}
    for stage in stages:
        block = blocks.get(stage)
        if block is None:
            found[stage] = StageState("never ran")
            continue
        made = {*lock_blocks.outputs(block)}
        copying = stage.partition("@")[0] in COPIES
        read = {*lock_blocks.paths(block)} - (set() if copying else made)
        own = [] if copying or stage not in changed else (changed[stage] or ["DVC finds a change"])
        reached = [why for one in read for path, why in renewed.items() if _overlap(one, path)]
        because = tuple(dict.fromkeys([*own, *sorted(reached)]))
        found[stage] = StageState("stale", because) if because else StageState("up to date")
        if because and not copying:
            renewed |= dict.fromkeys(made, stage + IS_STALE)
    return found


def described(states: Mapping[str, StageState], named: int = SHOWN_NAMES) -> str:
    """Return the states of a scenario's stages in a few words, with the names of the first ones behind."""
    counts = Counter(state.freshness for state in states.values())
    if counts["up to date"] == len(states):
        return f"all {len(states)} up to date"
    if counts["never ran"] == len(states):
        return "never ran"
    names = list(dict.fromkeys(name.partition("@")[0] for name in why_behind(states)))
    kinds = [f"{counts[kind]} {kind}" for kind in ("stale", "never ran") if counts[kind]]
    return f"{' and '.join(kinds)} of {len(states)}: {_shortened(names, named)}"


def causes(states: Iterable[StageState]) -> list[str]:
    """Return what made stages stale, each once, without the reason that another stage is stale."""
    return list(dict.fromkeys(why for state in states for why in state.because if not why.endswith(IS_STALE)))


def in_words(states: Mapping[str, StageState]) -> str:
    """Return the states of a scenario's stages, and the first of the changes that made them stale."""
    reasons, words = causes(states.values()), described(states, len(states))
    more = " …" if len(reasons) > SHOWN_REASONS else ""
    return f"{words} ({'; '.join(reasons[:SHOWN_REASONS])}{more})" if reasons else words


def why_behind(states: Mapping[str, StageState]) -> dict[str, str]:
    """Return why the stages, or their assets, that are not up to date are not, by name."""
    return {
        name: "; ".join(state.because) or state.freshness
        for name, state in states.items()
        if state.freshness != "up to date"
    }


def _outdated_settings(root: Path, params: Params, scenario: str) -> dict[str, str]:
    """Return the files of settings that would get another content, with the settings that make the difference."""
    entry = settings.entry(params, scenario)
    wanted = {settings.entry_path(scenario): entry, **files(scenario, settings.with_versions(entry))}
    return {
        path.as_posix(): f"{_shortened(_differing(root / path, content))} of {scenario} in {PARAMS}"
        for path, content in wanted.items()
        if not settings.holds(root / path, content)
    }


def _differing(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Return the keys in which a JSON file differs from `content`; all of them if there is no file."""
    held = json.loads(path.read_text()) if path.exists() else {}
    return [key for key in {**content, **held} if content.get(key) != held.get(key)]


def _shortened(names: Sequence[str], shown: int = SHOWN_NAMES) -> str:
    return ", ".join(names[:shown]) + (" …" if len(names) > shown else "")


def _overlap(one: str, other: str) -> bool:
    """Return whether two paths are equal, or one is inside the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def changed(root: Path, stages: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return those of `stages` (empty: all) in which `dvc status` finds a change, with its words.

    Raises:
        DvcBusyError: another process works on the same files.
        DvcError: DVC failed.
    """
    arguments = ["--wait-for-lock", "status", "--json", *stages]
    with dvc.running(arguments, root, stderr=subprocess.PIPE) as process:
        said, complaints = process.communicate()
    dvc.raise_if_failed("`dvc status`", complaints.splitlines(), process.returncode, root)
    return {str(name): list(_words(changes)) for name, changes in json.loads(said).items()}


def _words(changes: Any) -> Iterator[str]:
    """Yield the sentences of `dvc status`: of {"changed deps": {"data/raw": "modified"}}, "data/raw modified"."""
    for change in changes if isinstance(changes, list) else [changes]:
        if isinstance(change, str):
            yield change
            continue
        for path, word in (pair for kind in change.values() for pair in kind.items()):
            yield f"{path} {word}" if isinstance(word, str) else f"{', '.join(map(str, word))} in {path}"
