"""Selection policies by name. A new one is a file with one class, and a line here (CONTRIBUTING.md shows how).

A policy sees the ascending consensus scores of the training images, never a label, and says how many of them are kept.
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
        "fraction": "llbnad.policies.fraction:Fraction",
        "mad": "llbnad.policies.mad:Mad",
        "mixture": "llbnad.policies.mixture:Mixture",
        "otsu": "llbnad.policies.otsu:Otsu",
    },
    "llbnad.policies",
    _problem,
)


def count_kept(policy: SelectionPolicy, ordered: "np.ndarray") -> int:
    """Ask `policy` how many of the ascending scores (N,) are kept, 1 … N.

    Raises:
        ConfigError: the policy, one of your own perhaps, answered something else.
    """
    count = policy.count(ordered)
    if not 1 <= count <= len(ordered):
        raise ConfigError(
            f"selection policy {policy.policy} keeps {count} of {len(ordered)} images; expected 1 to {len(ordered)}: "
            "correct its method `count`, or use another policy"
        )
    return count
