"""Settings of the process: threads, device and allocator. Nothing here changes a result.

glibc returns the memory of large tensors to the kernel after every layer and asks for it again for the next layer. An
EfficientNet then spends more time in page faults than in arithmetic. Higher malloc thresholds keep the memory.

A thread of OpenMP that has no work spins, and where another program needs the core, it holds up the thread that it
waits for. Threads that sleep at once are slow on an idle machine. So they spin, but not for long.
"""

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from llbnad.config import Runtime
from llbnad.errors import ConfigError
from llbnad.utils.working_memory import limit

if TYPE_CHECKING:
    import torch

# mallopt(3) parameters and values
_MALLOC = {-3: 1 << 30, -1: (1 << 31) - 1, -2: 256 << 20}  # MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD in bytes
SPINS = "10000"  # of a waiting thread before it sleeps; OpenMP's own number is 300000


def prepare(runtime: Runtime) -> "torch.device":
    """Set allocator, memory limit, threads and determinism for this process, and return the device to compute on.

    Raises:
        ConfigError: the device is unknown or not available.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for parameter, value in _MALLOC.items():
                libc.mallopt(parameter, value)
    limit(runtime.memory_limit)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read once, when torch is imported

    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    elif runtime.processes > 1:  # more threads than cores would be slower than one thread per core
        share = max(1, (os.cpu_count() or 1) // runtime.processes)
        torch.set_num_threads(min(torch.get_num_threads(), share))
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if name not in ("cuda", *available) or (name == "cuda" and len(available) == 1):
        raise ConfigError(f"device is {name!r}, but available here are auto, {', '.join(available)}: use one of these")
    device = torch.device(name)
    if device.type == "cuda":
        # not on a CPU, whose kernels are deterministic anyway: the switch imports torch's compiler, which takes time
        torch.use_deterministic_algorithms(True)
        # full float32, because TF32, cuDNN's default, rounds products to ten bits
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device
