"""One file of a record: hashed, decoded, its masks checked."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llbnad.config import Window
from llbnad.data.decode import image_digest
from llbnad.data.drawn import is_black_and_white
from llbnad.data.images import CLIPPED, count_values, load_picture
from llbnad.data.intensity import shown
from llbnad.data.masks import marked, misfit, split_masks
from llbnad.data.sources.records import Record, Rejection
from llbnad.data.sources.survey import Survey
from llbnad.errors import DataError, PagesError


@dataclass(frozen=True)
class Examined:
    """The facts of one file, or why it is of no use."""

    image_id: str = ""
    size: tuple[int, int] = (0, 0)
    pixels: str = ""  # digest of the decoded pixels
    values: int = 0  # distinct grey values, 3 for more
    black_and_white: bool = False  # nearly, with little between
    deep: bool = False  # more than 8 bits, read by the window
    outside: float = 0.0  # share of the values outside the window
    cut_to_8_bits: bool = False
    rejection: Rejection | None = None
    trouble: Sequence[Rejection] = ()  # with its mask
    marked: float | None = None  # share of the pixels that its masks mark


def examine(root: Path, record: Record, window: Window | None) -> Examined:
    """Return what a record's file holds.

    Args:
        root: folder that paths are relative to.
        record: the record.
        window: values above 8 bits that are black and white.
    """
    path = root / record.path
    try:
        record.path.encode()
    except UnicodeEncodeError:
        detail = f"{record.path}: its name is not UTF-8; rename the file"
        return Examined(rejection=Rejection(record.path, "unreadable", detail))
    try:
        picture = load_picture(path, window)
        image = picture.image
        pixels = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        trouble = _checked_masks(root, record, image.size)
        share = None
        if record.mask_path and not trouble:
            row = {**vars(record), "width": image.width, "height": image.height}
            share = float(marked(row, root, image.size).mean())
        drawn = is_black_and_white(image.convert("L").histogram())
        return Examined(image_digest(path), image.size, pixels, count_values(image), drawn, picture.deep,
                        picture.outside, picture.cut_to_8_bits, trouble=trouble, marked=share)  # fmt: skip
    except FileNotFoundError:
        detail = f"{path} is listed but not there"
        return Examined(rejection=Rejection(record.path, "missing", detail))
    except PagesError as error:
        return Examined(rejection=Rejection(record.path, "pages", str(error)))
    except (DataError, OSError) as error:
        return Examined(rejection=Rejection(record.path, "unreadable", str(error)))


def shows_nothing(finding: Examined, surveyed: Survey) -> tuple[str, str] | None:
    """Return reason and detail why an image is of no use: it is constant, or outside the window."""
    by = f" in the window {shown(surveyed.window)}" if finding.deep and surveyed.window else ""
    hint = f"{by}: if it shows something, set intensity to a window [low, high] that holds its values" if by else ""
    if finding.outside > CLIPPED:
        return "clipped", f"{finding.outside:.1%} of its values are not{hint}"
    if finding.values == 1:
        return "constant", f"all of its pixels have one value{hint}"
    return None


def _checked_masks(root: Path, record: Record, size: tuple[int, int]) -> list[Rejection]:
    """Return why masks of an image of this width and height are of no use; empty if all are, or if there is none."""
    found = []
    for mask in split_masks(record.mask_path):
        try:
            mask.encode()
            reason = misfit(root / record.path, root / mask, size)
            if reason is not None:
                found.append(Rejection(mask, "mask_shape", f"the mask of {record.path}: {reason}"))
        except FileNotFoundError:
            found.append(Rejection(mask, "mask_missing", f"the mask of {record.path} is not there"))
        except UnicodeEncodeError:
            found.append(Rejection(mask, "mask_unreadable", f"{mask}: its name is not UTF-8; rename the file"))
        except (DataError, OSError) as error:
            found.append(Rejection(mask, "mask_unreadable", str(error)))
    return found
