"""Reproducible randomness: numbers and orders that depend on nothing but their arguments."""

import hashlib
from collections.abc import Iterable


def stable_number(key: str, seed: int, purpose: str) -> int:
    """A uniform 64-bit number that depends on nothing but its arguments; `purpose` keeps uses independent."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()[:8], "big")


def stable_shuffle(keys: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The distinct `keys` in an order that is random, reproducible and independent of the order given."""
    return sorted(set(keys), key=lambda key: (stable_number(key, seed, purpose), key))
