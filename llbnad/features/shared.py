"""The shared feature cache: entries that several machines hold in one folder or bucket, so that one of them encodes.

The address is a folder (mounted everywhere under this path) or any address that fsspec knows, such as
`s3://bucket/features`. An entry has the name that it has in the local cache, which every machine keeps beside it. Who
reads an entry checks it; this module only carries bytes. Where the place does not answer, one warning is given, and the
process goes on without it: features are then encoded here.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from llbnad.errors import ConfigError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LOG = logging.getLogger(__name__)
AT_ONCE = 32  # entries in memory at once: a megabyte each, or a few with a large network
FOLDERS = ("file", "local")  # fsspec's names of the file system of this machine


class SharedCache:
    """A place for cache entries that other machines read and write as well.

    Args:
        address: a folder, or an address that fsspec knows.

    Raises:
        ConfigError: fsspec does not know the address, or a package that it needs is missing.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._works = True
        self._place: tuple[AbstractFileSystem, str] | None = None
        _protocol(address)

    def read(self, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the entries that are there, by name and content; the others are left out."""
        for start in range(0, len(names), AT_ONCE):
            some = names[start : start + AT_ONCE]
            found = self._read(some) if self._works else {}
            yield from ((name, found[name]) for name in some if name in found)

    def write(self, entries: Mapping[str, bytes]) -> None:
        """Write entries by name. One that is there is replaced."""
        if not self._works:
            return
        try:
            system, root = self._open()
            system.pipe({f"{root}/{name}": content for name, content in entries.items()})
        except Exception as error:  # each file system has errors of its own
            self._give_up(error)

    def _read(self, names: Sequence[str]) -> dict[str, bytes]:
        try:
            system, root = self._open()
            paths = {f"{root}/{name}": name for name in names}
            answers: dict[str, bytes | Exception] = system.cat(list(paths), on_error="return")
        except Exception as error:
            self._give_up(error)
            return {}
        found = {}
        for path, answer in answers.items():
            if isinstance(answer, bytes):
                found[paths[path]] = answer
            elif not isinstance(answer, FileNotFoundError) and self._works:
                self._give_up(answer)
        return found

    def _open(self) -> "tuple[AbstractFileSystem, str]":
        if self._place is None:
            from fsspec.core import url_to_fs

            options = {"auto_mkdir": True} if _protocol(self.address) in FOLDERS else {}
            system, root = url_to_fs(self.address, **options)
            self._place = system, root.rstrip("/")
        return self._place

    def _give_up(self, error: Exception) -> None:
        self._works = False
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        LOG.warning("the shared feature cache %s is left out, features are encoded here (%s)", self.address, said)


def _protocol(address: str) -> str:
    """Return fsspec's name of the file system of an address."""
    from fsspec import get_filesystem_class
    from fsspec.utils import get_protocol

    protocol = get_protocol(address)
    try:
        get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"runtime.feature_cache is {address!r}: {error}; expected a folder or an address that fsspec knows, such "
            "as s3://BUCKET/features (for S3: pip install s3fs, which the extra `cluster` brings)"
        ) from None
    return protocol
