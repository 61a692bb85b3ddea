"""The image files that a person names to be scored, and a folder for results that is none of theirs."""

from collections.abc import Sequence
from pathlib import Path

from llbnad.config import Pages
from llbnad.data.decode import IMAGE_SUFFIXES, page_of, pages_of
from llbnad.errors import ConfigError, DataError
from llbnad.inference.prediction import printable
from llbnad.utils.files import relative_files

HEAT_MAPS, SHEET = "heatmaps", "contact_sheet.png"  # folder and file with pictures, in the folder of results
NUMBERED = "[0-9]" * 5  # begins the name of each heat map


def find_images(inputs: Sequence[Path], pages: Pages = "error") -> list[Path]:
    """Return the image files in `inputs`. Folders are searched with their subfolders.

    Args:
        inputs: image files, single pages of them (`FILE#2`), or folders.
        pages: a file of several pages is left to the reader, which calls it an error, or stands for its pages.

    Raises:
        DataError: an input does not exist, or there is no image.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found += [path / inside for inside in relative_files(path, IMAGE_SUFFIXES)]
        elif page_of(path)[0].exists():
            found.append(path)
        else:
            raise DataError(f"{path} does not exist: give image files or folders")
    if not found:
        raise DataError(f"no image under {[str(path) for path in inputs]}; expected {sorted(IMAGE_SUFFIXES)}")
    return [page for path in found for page in pages_of(path, pages)]


def refuse_own_pictures(inputs: Sequence[Path], images: Sequence[Path], out: Path) -> None:
    """Refuse a folder `out` whose pictures this call or the next one would take for images.

    Args:
        inputs: files and folders that the images were looked for in.
        images: images found there.
        out: folder that pictures are written to.

    Raises:
        ConfigError: `out` lies in one of the folders, or an image is a picture that an earlier call wrote to `out`.
    """
    target = out.resolve()
    for folder in inputs:
        if folder.is_dir() and target.is_relative_to(folder.resolve()):
            raise ConfigError(
                f"--out {printable(out)} lies in {printable(folder)}: the next call would take its pictures for "
                "images; name a folder elsewhere"
            )
    for image in images:
        inside = page_of(image)[0].resolve()
        if inside == target / SHEET or (inside.parent == target / HEAT_MAPS and inside.match(f"{NUMBERED}_*.png")):
            raise ConfigError(
                f"{printable(image)} is a picture in --out {printable(out)}: leave it out, or name another --out"
            )
