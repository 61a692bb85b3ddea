"""Examination of a file in the inbox: a readable image, or the reason why not. The content decides, not the name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from llbnad.data.images import load_rgb
from llbnad.errors import DataError, NotAnImageError
from llbnad.utils.files import file_digest
from orchestration.line.inbox import warn_that_it_stays

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}  # by Pillow's format name


@dataclass(frozen=True)
class Content:
    """The content of a file."""

    sha256: str
    suffix: str = ""  # suffix for a good image; empty for any other file
    reason: str = ""  # why it is not a good image: not_an_image, unreadable
    detail: str = ""


def examine(inbox: Path, path: str) -> Content | None:
    """Examine the content of a file in the inbox. Return None if the file has gone or this user may not read it.

    Args:
        inbox: folder of the line.
        path: POSIX path relative to `inbox`.
    """
    file = inbox / path
    try:
        digest = file_digest(file)
        load_rgb(file)
        with Image.open(file) as image:
            kind = image.format or ""
    except DataError as error:
        reason = "not_an_image" if isinstance(error, NotAnImageError) else "unreadable"
        return Content(digest, reason=reason, detail=str(error).replace(str(file), PurePosixPath(path).name))
    except FileNotFoundError:
        return None
    except OSError as error:
        warn_that_it_stays(file, error, "read")
        return None
    if kind not in SUFFIXES:
        return Content(digest, reason="not_an_image", detail=f"format {kind}; expected {', '.join(SUFFIXES)}")
    return Content(digest, SUFFIXES[kind])
