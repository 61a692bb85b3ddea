"""Hashes: reproducible randomness, whose numbers and orders depend only on their arguments, and digests of content."""

import hashlib
from collections.abc import Iterable

FEW = 100  # keys; parts of fewer keys are made equal


def stable_number(key: str, seed: int, purpose: str) -> int:
    """Return a uniform 64-bit number that depends only on its arguments. `purpose` keeps different uses independent."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{key}".encode()).digest()[:8], "big")


def stable_shuffle(keys: Iterable[str], seed: int, purpose: str) -> list[str]:
    """Return the distinct `keys` in a random, reproducible order, which does not depend on the order given."""
    return sorted(set(keys), key=lambda key: (stable_number(key, seed, purpose), key))


def deal(keys: Iterable[str], parts: int, seed: int, purpose: str) -> dict[str, int]:
    """Return a part 0 … parts-1 for each of the distinct `keys`.

    From `FEW` keys on, a hash decides, so a key keeps its part when other keys arrive. The hash alone would leave parts
    of a few keys unequal or empty, so fewer keys are dealt out in the order of their hashes, anew when others arrive.
    """
    shuffled = stable_shuffle(keys, seed, purpose)
    if len(shuffled) < FEW:
        return {key: place % parts for place, key in enumerate(shuffled)}
    return {key: stable_number(key, seed, purpose) % parts for key in shuffled}


def digest_of(description: str, parts: Iterable[tuple[str, bytes | memoryview]]) -> str:
    """Return the SHA-256 of a description and of named bytes. A name also says the type and the shape, if there are."""
    digest = hashlib.sha256(description.encode())
    for name, content in parts:
        digest.update(name.encode())
        digest.update(content)
    return digest.hexdigest()
