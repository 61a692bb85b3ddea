"""The limit on the size of temporary matrices. It changes no result.

Nearest-neighbour searches work in blocks of this size. Small blocks are as fast as large blocks, and they keep glibc's
heap whole: large temporary matrices beside small results that stay would make the heap grow.
"""

USUAL = 16 << 20  # bytes per block
_bytes = USUAL


def limit(mebibytes: int) -> None:
    """Set the size of every block of this process in MiB; 0 restores the usual size."""
    global _bytes
    _bytes = mebibytes << 20 if mebibytes else USUAL


def block_bytes() -> int:
    """Return the number of bytes that a block may take."""
    return _bytes
