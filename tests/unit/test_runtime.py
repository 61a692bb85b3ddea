"""The threads that a process computes with: how many, and what they do while they wait."""

import json
import os
import subprocess
import sys

import pytest

from llbnad.utils.runtime import SPINS

CORES = os.cpu_count() or 1
ASKED = [(1, 0), (2, 0), (2 * CORES, 0), (1, 3), (2, 3)]  # processes and threads of `runtime`, in turn
COUNT = """
import json, sys
from llbnad.config import Runtime
from llbnad.utils.runtime import prepare
found = []
for processes, threads in json.loads(sys.argv[1]):
    for _ in range(2):  # a stage may prepare more than once
        prepare(Runtime(device="cpu", processes=processes, threads=threads))
    import torch
    found.append(torch.get_num_threads())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def threads_of() -> dict[tuple[int, int], int]:
    """Threads of torch in a process that was asked for what `ASKED` says, one after the other."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", COUNT, json.dumps(ASKED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(ASKED, json.loads(done.stdout), strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with another OpenMP there")
@pytest.mark.parametrize(
    ("theirs", "spins"), [({}, SPINS), ({"OMP_WAIT_POLICY": "passive"}, "0"), ({"GOMP_SPINCOUNT": "7"}, "7")]
)
def test_waiting_threads_spin_for_a_moment_unless_the_user_says_otherwise(theirs, spins):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    command = [sys.executable, "-c", COUNT, json.dumps([[1, 0]])]
    shown = {"OMP_DISPLAY_ENV": "verbose"}  # OpenMP says as it starts what it has read
    done = subprocess.run(command, env=environment | shown | theirs, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


def test_processes_share_the_cores(threads_of):
    alone = threads_of[1, 0]
    assert threads_of[2, 0] == min(alone, max(1, CORES // 2))
    assert threads_of[2 * CORES, 0] == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_threads_that_are_asked_for_are_taken(threads_of, processes):
    assert threads_of[processes, 3] == 3
