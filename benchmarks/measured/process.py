"""A function run in a fresh process: its result, time and peak memory.

    python -m benchmarks.measured.process MODULE FUNCTION JSON RESULT

The caller must stay small: a child's peak memory counts from before its exec, so it cannot be below its parent's.
"""

import importlib
import inspect
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


class MeasurementError(RuntimeError):
    """A measured function failed; the message holds the end of what it printed."""


def measure(function: str, threads: int, **arguments: Any) -> dict[str, Any]:
    """Run `module.function` of this package and return its result with `wall_seconds` and `peak_rss_mb` of its process.

    Args:
        function: e.g. encoding.ours.
        threads: threads of every library that computes; passed on to a function that has such an argument.
        arguments: arguments of the function, as JSON values.
    """
    module, _, name = function.partition(".")
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
                   "OPENBLAS_NUM_THREADS": str(threads)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        given = json.dumps(arguments)
        command = [sys.executable, "-m", "benchmarks.measured.process", module, name, given, str(result)]
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        wall = time.perf_counter() - started
        if done.returncode != 0:
            raise MeasurementError(f"{function}: " + (done.stderr or done.stdout)[-1500:])
        return {"wall_seconds": wall, **json.loads(result.read_text())}


def cpu() -> dict[str, Any]:
    """Return the instruction set of torch's kernels, such as AVX2 or AVX512. Results compare only within one set."""
    import torch

    return {"cpu": torch.backends.cpu.get_cpu_capability()}


def main(module: str, name: str, arguments: str, result: str) -> None:
    """Run the function in the fresh process."""
    function = getattr(importlib.import_module(f"benchmarks.measured.{module}"), name)
    given = json.loads(arguments)
    if "threads" in inspect.signature(function).parameters:
        given["threads"] = int(os.environ["OMP_NUM_THREADS"])
    found = function(**given)
    # kilobytes on Linux; of this process, or of the largest it started
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    Path(result).write_text(json.dumps({"peak_rss_mb": round(peak / 1024), **found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
