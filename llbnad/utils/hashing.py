"""Reproducible randomness: numbers and orders that depend only on their arguments."""

import hashlib
from collections.abc import Iterable


def stable_number(key: str, seed: int, purpose: str) -> int:
    """Return a uniform 64-bit number that depends only on its arguments. `purpose` keeps different uses independent."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()[:8], "big")


def stable_shuffle(keys: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Return the distinct `keys` in a random, reproducible order, which does not depend on the order given."""
    return sorted(set(keys), key=lambda key: (stable_number(key, seed, purpose), key))
