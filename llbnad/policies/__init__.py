"""Selection policies by name. A new one is a file with one class, and a line here (llbnad/README.md shows how).

A policy sees the ascending consensus scores of the training images, never a label, and says how many of them are kept.
"""

from llbnad.registry import Registry

POLICIES = Registry(
    "selection policy",
    {
        "fraction": "llbnad.policies.fraction:Fraction",
        "mad": "llbnad.policies.mad:Mad",
        "mixture": "llbnad.policies.mixture:Mixture",
        "otsu": "llbnad.policies.otsu:Otsu",
    },
)
