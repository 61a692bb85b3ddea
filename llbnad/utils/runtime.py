"""How this process computes: threads, device, allocator. Nothing here changes a result.

glibc gives large tensors back to the kernel after every layer and fetches them anew for the next one; EfficientNet
then spends more time in page faults than in arithmetic. Raising malloc's thresholds keeps the memory.
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


def prepare(runtime: Runtime) -> "torch.device":
    """Set allocator, memory limit, threads and determinism for this process and return the device to compute on.

    Raises:
        ConfigError: the device is unknown or not there.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            for parameter, value in _MALLOC.items():
                libc.mallopt(parameter, value)
    limit(runtime.memory_limit)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS

    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    elif runtime.processes > 1:  # more threads than cores are slower than one each
        share = max(1, (os.cpu_count() or 1) // runtime.processes)
        torch.set_num_threads(min(torch.get_num_threads(), share))
    name = runtime.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"runtime.device {name!r} is unknown; expected auto, cpu or cuda") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"runtime.device is {name!r}, but torch sees no GPU: use auto or cpu")
        # on CPU the kernels used here are deterministic anyway, and the switch imports torch's compiler: 1.5 s
        torch.use_deterministic_algorithms(True)
        # full float32: TF32, cuDNN's default, rounds products to ten bits
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device
