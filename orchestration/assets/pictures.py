"""Pictures as Dagster's pages show them: small in the metadata, with a link to the whole picture."""

import base64
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import yaml

from llbnad.utils.files import replacing
from orchestration.pipeline.cluster import MACHINE

WIDTH = 432  # pixels: room in the overview of an asset, beside names and navigation, in a window of 1500
FOLDER = "pictures"  # among the logs
QUALITY = 88  # of JPEG


def picture(file: Path) -> dg.MarkdownMetadataValue:
    """Return a small copy of a picture as metadata, and a link that loads the whole picture.

    Dagster's pages show Markdown at once only if it is short. So the copy and the whole picture lie among the logs,
    from where Dagster's web server hands them out, and the metadata holds their addresses there. Where that server
    cannot read this machine's files, the metadata holds the copy itself, which the pages hide behind a click.
    """
    content = _preview(file)
    folder = _served_folder()
    if folder is None:
        return dg.MetadataValue.md(f"![{file.stem}](data:image/jpeg;base64,{base64.b64encode(content).decode()})")
    small = _served(folder, content, ".jpg", lambda copy: copy.write_bytes(content))
    whole = _served(folder, file.read_bytes(), file.suffix, lambda copy: _link(file, copy))
    return dg.MetadataValue.md(f"![{file.stem}]({small})\n\n[download the whole picture]({whole})")


def _served(folder: Path, content: bytes, suffix: str, write: Callable[[Path], object]) -> str:
    """Put a file among the logs, once, and return the address at which Dagster's web server hands it out."""
    name = hashlib.sha256(content).hexdigest()[:32]
    target = folder / FOLDER / f"{name}{suffix}"
    if not target.exists():
        with replacing(target) as temporary:
            write(temporary)
    return f"/logs/{FOLDER}/{name}/{suffix[1:]}"


def _link(source: Path, target: Path) -> None:
    """Make `target` the same file, or a copy where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _served_folder() -> Path | None:
    """Return the folder of logs that Dagster's web server reads; None if runs may be on other machines, or nowhere."""
    home = os.environ.get("DAGSTER_HOME")
    if not home or MACHINE in os.environ:
        return None
    settings = Path(home) / "dagster.yaml"
    content = yaml.safe_load(settings.read_text()) if settings.exists() else None
    # the keys with which people send runs or logs elsewhere
    return None if {"run_launcher", "compute_logs", "storage"} & (content or {}).keys() else Path(home) / "storage"


def _preview(file: Path) -> bytes:
    """Return a small copy of a picture as JPEG."""
    from PIL import Image

    with Image.open(file) as picture:
        small = picture.convert("RGB")
        small.thumbnail((WIDTH, 10 * WIDTH))
        buffer = io.BytesIO()
        # all colours; a sheet of photographs takes a third of a PNG
        small.save(buffer, format="jpeg", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
