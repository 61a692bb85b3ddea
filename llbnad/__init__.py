"""LLBNAD: fully unsupervised anomaly detection from training images that contain unlabelled defects.

The method of "Leveraging Learning Bias for Noisy Anomaly Detection" (arXiv 2508.07441), for any detector. This package
takes arrays, tables and paths and returns plain frozen objects. It does not depend on the tools (DVC, Dagster, MLflow,
Great Expectations) that `orchestration/` builds around it.

    import llbnad

    result = llbnad.purify("images/", detector="patchcore")
    print(result.rejected[:10])  # the most suspicious images first

    model = llbnad.fit("images/", detector="patchcore")
    model.save("model.safetensors")
    print(llbnad.load("model.safetensors").predict("images/"))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llbnad.api import Purification, TrainedModel, fit, load, purify

__version__ = "0.2.0"
__all__ = ["Purification", "TrainedModel", "fit", "load", "purify"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import llbnad` alone takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'llbnad' has no attribute {name!r}")
    from llbnad import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
