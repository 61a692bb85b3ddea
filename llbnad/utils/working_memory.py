"""How large an intermediate matrix may become that is used at once and then dropped. Nothing here changes a result.

Nearest-neighbour searches work in blocks. Small blocks are as fast as large ones, and they keep glibc's heap whole: a
matrix of 64 MiB per batch, beside small results that stay, made a run's memory grow from 1.4 to 7 GB.
"""

USUAL = 16 << 20  # bytes of a block
_bytes = USUAL


def limit(mebibytes: int) -> None:
    """Bound every block of this process; 0 gives back the usual bound."""
    global _bytes
    _bytes = mebibytes << 20 if mebibytes else USUAL


def block_bytes() -> int:
    """Bytes that a block may take."""
    return _bytes
