"""The place where the stages of a scenario run in this process, and what happens to a stage that has ended.

On one machine with few scenarios, that is the repository itself. With many, it is a slice below .dvc/tmp, whose
finished stages are brought home at once. On a worker, it is a slice of that machine, whose finished stages are
published. Whoever runs stages need not know which.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.pipeline import lock_blocks
from orchestration.pipeline.cluster import MACHINE
from orchestration.pipeline.params import load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.repro import Outcome, outcome_of
from orchestration.slices import worker_slice
from orchestration.slices.local_slice import bring_home, open_slice
from orchestration.slices.run import renew_shared

ABOVE = 20  # scenarios that one dvc.lock holds without slowing each stage down; more are worked in slices


@dataclass(frozen=True)
class Workplace:
    """Where the stages of a scenario run.

    Args:
        root: the folder that dvc works in.
        sliced: whether it is a slice.
        keep: called with stages that have ended.
        shared: stages that serve all scenarios and have run elsewhere already, with what dvc did; the slice's own
            entries of them are nobody else's.
    """

    root: Path
    sliced: bool = False
    keep: Callable[[Sequence[str]], object] = lambda stages: None
    shared: Mapping[str, Outcome] = field(default_factory=dict)


def open_workplace(root: Path, scenario: str, log: Callable[[str], None]) -> Workplace:
    """Make the place ready and return it.

    Args:
        root: root of the repository, on a worker of its clone.
        scenario: name in params.yaml.
        log: called with each line of dvc.

    Raises:
        ConfigError: params.yaml is wrong or has no such scenario.
        SliceError: on a worker, the scenario cannot be taken.
        DvcError: a stage that serves all scenarios failed.
    """
    if MACHINE in os.environ:
        place = worker_slice.workspace(root, scenario)
        return Workplace(place, sliced=True, keep=lambda stages: worker_slice.publish(place, stages))
    params = load_params(root / PARAMS)
    if len(params.scenarios) <= ABOVE or scenario not in params.scenarios:
        return Workplace(root)
    shared: dict[str, Outcome] = {}

    def hear(line: str) -> None:
        log(line)
        shared.update([event] if (event := outcome_of(line)) else [])

    first = renew_shared(root, hear)
    place, order = open_slice(root, scenario, params), lock_blocks.stage_names(root)
    return Workplace(place, True, lambda stages: bring_home(root, place, stages, order, first), shared)


def place_of(root: Path, scenario: str) -> Path:
    """Return the folder that holds a scenario's outputs: its slice on a worker, `root` itself elsewhere.

    A slice that this process has not taken yet is taken, so that all that was recorded is there, and nothing older: an
    asset may run alone, also where the worker that made the others has died.

    Raises:
        SliceError: the scenario cannot be taken.
        DvcError: what was recorded could not be pulled.
    """
    if folder := os.environ.get(MACHINE):
        place = worker_slice.slice_folder(Path(folder), scenario)
        return place if worker_slice.is_held(place) else worker_slice.workspace(root, scenario)
    return root
