"""Which stages are up to date, stale or never ran, as `dvc repro` would find them.

DVC tells which stages have a change of their own. What a change reaches is known exactly for the three stages that only
copy from the code and params.yaml, since what they would write is computed here. A stage after another one that is
stale is stale too, though `dvc repro` leaves it alone if the other one writes the same bytes again.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from orchestration.pipeline import code, dvc, lock_blocks, settings
from orchestration.pipeline.params import Params
from orchestration.pipeline.read_by import files

Freshness = Literal["up to date", "stale", "never ran"]
COPIES = (code.STAGE, settings.SPLIT, settings.STAGE)  # stages whose outputs are computed here to be compared


def freshness(root: Path, params: Params, scenarios: Sequence[str]) -> dict[str, Freshness]:
    """Return the state of each stage of `scenarios`, causes first. Nothing runs and nothing is written.

    Args:
        root: root of the repository.
        params: content of its params.yaml.
        scenarios: names of scenarios.

    Raises:
        BusyError: another process kept the files busy for too long.
        DvcError: DVC refuses the pipeline, for example because params.yaml is wrong.
    """
    wanted = {stage for scenario in scenarios for stage in lock_blocks.stages_of(root, scenario)}
    stages = [stage for stage in lock_blocks.stage_names(root) if stage in wanted]
    blocks = lock_blocks.read_blocks(root)
    known = [stage for stage in stages if stage in blocks]
    changed = _changed(root, known) if known else set()
    return propagated(stages, blocks, changed, _outdated_copies(root, params, scenarios))


def propagated(
    stages: Iterable[str], blocks: Mapping[str, str], changed: Iterable[str], copies: Iterable[str]
) -> dict[str, Freshness]:
    """Return the state of each stage, given the stages in which DVC finds a change.

    Args:
        stages: names, causes before what depends on them.
        blocks: entries of dvc.lock by stage (`lock_blocks`).
        changed: stages with a change of their own.
        copies: outputs of the stages `COPIES` that would get another content.
    """
    changed, found, renewed = {*changed}, dict[str, Freshness](), {*copies}
    for stage in stages:
        block = blocks.get(stage)
        if block is None:
            found[stage] = "never ran"
            continue
        made = {*lock_blocks.outputs(block)}
        copying = stage.partition("@")[0] in COPIES
        read = made if copying else {*lock_blocks.paths(block)} - made
        stale = (stage in changed and not copying) or any(_overlap(one, other) for one in read for other in renewed)
        found[stage] = "stale" if stale else "up to date"
        if stale and not copying:
            renewed |= made
    return found


def _outdated_copies(root: Path, params: Params, scenarios: Iterable[str]) -> set[str]:
    """Return the files of the stages `COPIES` that would get another content."""
    found = set(code.outdated(root))
    for scenario in scenarios:
        entry = settings.entry(params, scenario)
        wanted = {settings.entry_path(scenario): entry, **files(scenario, settings.with_versions(entry))}
        found |= {path for path, content in wanted.items() if not settings.holds(root / path, content)}
    return {path.as_posix() for path in found}


def _overlap(one: str, other: str) -> bool:
    """Return whether two paths are equal, or one is inside the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _changed(root: Path, stages: Sequence[str]) -> set[str]:
    """Return the stages in which `dvc status` finds a change."""
    arguments = ["--wait-for-lock", "status", "--json", *stages]
    with dvc.running(arguments, root, stderr=subprocess.PIPE) as process:
        said, complaints = process.communicate()
    dvc.raise_if_failed("`dvc status`", complaints.splitlines(), process.returncode, root)
    return {str(name) for name in json.loads(said)}
