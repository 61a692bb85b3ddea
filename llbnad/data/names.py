"""The names by which people know images: what the camera called a file, not what it is stored as.

A production line stores a file as `<SHA-256>-<camera's name>-<suffix>`. Its first part alone is its identity: neither
results nor the search for masks depend on the name, which ends with `-` because no name of a mask does.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

STORED = re.compile(r"(?P<content>[0-9a-f]{64})-(?P<name>.+)-(?P<suffix>\.[^.]*)")  # of a page: suffix#2
SAFE = re.compile(r"[^A-Za-z0-9._+-]+")  # what else a name may hold is replaced when it is stored
LONGEST_STORED = 120  # characters of the camera's name


def stored_name(content: str, name: str, suffix: str) -> str:
    """Return the name under which a file is stored.

    Args:
        content: SHA-256 of the file.
        name: what the camera called it.
        suffix: suffix of its format, such as `.png`.
    """
    known = SAFE.sub("_", PurePosixPath(name).stem)[:LONGEST_STORED]
    return f"{content}-{known}-{suffix}" if known else f"{content}{suffix}"


def content_path(path: str) -> str:
    """Return a path without the camera's name in it; any other path as it is."""
    parts = PurePosixPath(path)
    found = STORED.fullmatch(parts.name)
    return parts.with_name(f"{found['content']}{found['suffix']}").as_posix() if found else path


def shown_name(path: str) -> str:
    """Return the name to show for an image's path: that of the camera, if the stored name holds it."""
    name = PurePosixPath(path).name
    found = STORED.fullmatch(name)
    return f"{found['name']}{found['suffix']}" if found else name


def listed(names: Sequence[str], shown: int) -> str:
    """Return the first names of images, and how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
