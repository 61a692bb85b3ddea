"""Tell what a file of the inbox is: an image of a kind we read, or why not. Its content decides, not its name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from llbnad.data.images import load_rgb
from llbnad.errors import DataError
from llbnad.utils.files import file_digest
from orchestration.line.inbox import warn_that_it_stays

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}  # Pillow's names


@dataclass(frozen=True)
class Content:
    """The content of a file."""

    sha256: str
    suffix: str = ""  # of a good image; empty for any other file
    reason: str = ""  # why it is no good image: not_an_image, unreadable
    detail: str = ""


def examine(inbox: Path, path: str) -> Content | None:
    """Look into a file of the inbox; None if it went or cannot be read, which says nothing about its content.

    Args:
        inbox: the line's folder.
        path: POSIX path relative to it.
    """
    file = inbox / path
    try:
        digest = file_digest(file)
        load_rgb(file)
        with Image.open(file) as image:
            kind = image.format or ""
    except DataError as error:
        reason = "not_an_image" if "not an image" in str(error) else "unreadable"
        return Content(digest, reason=reason, detail=str(error).replace(str(file), PurePosixPath(path).name))
    except FileNotFoundError:
        return None
    except OSError as error:
        warn_that_it_stays(file, error, "read")
        return None
    if kind not in SUFFIXES:
        return Content(digest, reason="not_an_image", detail=f"format {kind}; expected {', '.join(SUFFIXES)}")
    return Content(digest, SUFFIXES[kind])
