"""Examination of a file in the inbox: a readable image, or the reason why not. The content decides, not the name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from llbnad.config import Pages
from llbnad.data.decode import FORMATS, pages_of, readable_formats
from llbnad.data.images import load_rgb
from llbnad.errors import DataError, NotAnImageError
from llbnad.utils.files import file_digest
from orchestration.line.inbox import warn_that_it_stays

SUFFIXES = {name: suffixes[0] for name, suffixes in FORMATS.items()} | {"MPO": ".jpg"}  # by Pillow's format name


@dataclass(frozen=True)
class Content:
    """The content of a file."""

    sha256: str
    suffix: str = ""  # suffix for a good image; empty for any other file
    reason: str = ""  # why it is not a good image: not_an_image, unreadable
    detail: str = ""


def examine(inbox: Path, path: str, pages: Pages = "error") -> Content | None:
    """Examine the content of a file in the inbox. Return None if the file has gone or this user may not read it.

    Args:
        inbox: folder of the line.
        path: POSIX path relative to `inbox`.
        pages: a file of several pages is unreadable, or good if its first page or each of them is.
    """
    file = inbox / path
    try:
        digest = file_digest(file)
        for page in pages_of(file, pages):
            load_rgb(page)
        with Image.open(file, formats=readable_formats()) as image:
            kind = image.format or ""
    except DataError as error:
        reason = "not_an_image" if isinstance(error, NotAnImageError) else "unreadable"
        return Content(digest, reason=reason, detail=str(error).replace(str(file), PurePosixPath(path).name))
    except FileNotFoundError:
        return None
    except OSError as error:
        warn_that_it_stays(file, error, "read")
        return None
    return Content(digest, SUFFIXES[kind])
