"""Selection policies by name. To add one, write a file with one class and add a line here (see CONTRIBUTING.md).

A policy sees the ascending consensus scores of the training images, never a label. It decides how many images are kept.
"""

from typing import TYPE_CHECKING, Any

from llbnad.config import SelectionPolicy
from llbnad.errors import ConfigError
from llbnad.utils.registry import Registry

if TYPE_CHECKING:
    import numpy as np


def _problem(found: Any) -> str:
    if not issubclass(found, SelectionPolicy):
        return f"{found.__qualname__} is not a subclass of llbnad.config.SelectionPolicy"
    return f"{found.__qualname__} has no method count" if found.count is SelectionPolicy.count else ""


POLICIES = Registry(
    "selection policy",
    {
        "adaptive": "llbnad.policies.adaptive:Adaptive",
        "fraction": "llbnad.policies.fraction:Fraction",
        "mad": "llbnad.policies.mad:Mad",
        "mixture": "llbnad.policies.mixture:Mixture",
        "tail": "llbnad.policies.tail:Tail",
        "otsu": "llbnad.policies.otsu:Otsu",
    },
    "llbnad.policies",
    _problem,
)


def count_kept(policy: SelectionPolicy, ordered: "np.ndarray") -> int:
    """Return how many of the ascending scores (N,) `policy` keeps, 1 … N.

    Raises:
        ConfigError: the policy returned a number outside this range.
    """
    count = policy.count(ordered)
    if not 1 <= count <= len(ordered):
        raise ConfigError(
            f"selection policy {policy.policy} keeps {count} of {len(ordered)} images; expected 1 to {len(ordered)}: "
            "correct its method `count`, or use another policy"
        )
    return count
