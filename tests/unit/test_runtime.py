"""How a process computes."""

import os
import subprocess
import sys

import pytest

COUNT = """
import torch
from llbnad.config import Runtime
from llbnad.utils.runtime import prepare
for _ in range(2):  # a stage may prepare more than once
    prepare(Runtime(device="cpu", processes={processes}, threads={threads}))
print(torch.get_num_threads())
"""


def threads_of(processes: int, threads: int) -> int:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    code = COUNT.format(processes=processes, threads=threads)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_processes_share_the_cores():
    alone = threads_of(1, 0)
    cores = os.cpu_count() or 1
    assert threads_of(2, 0) == min(alone, max(1, cores // 2))
    assert threads_of(2 * cores, 0) == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_threads_that_are_asked_for_are_taken(processes):
    assert threads_of(processes, 3) == 3
