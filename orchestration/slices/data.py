"""The caches and the data set of a slice on a worker: those of the machine, and one that workers can get."""

import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestration.pipeline import dvc
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.paths import ARRIVALS, FEATURE_CACHE
from orchestration.slices.refs import NoDataError

MISSING = ("missing-files", "Missing cache files", "[Errno 2]")  # in DVC's words for what its remote lacks


def connect(root: Path, place: Path, machine: Path) -> None:
    """Let a slice use the machine's caches, and the DVC remote that its clone names.

    Args:
        root: the clone, whose .dvc/config.local may hold the remote's address or credentials.
        place: folder of the slice.
        machine: folder of the machine.

    Raises:
        NoDataError: DVC has no default remote, so no bytes could be exchanged.
    """
    config = _config(root / ".dvc" / "config.local")
    if not _config(place / ".dvc" / "config", root / ".dvc" / "config.local").get("core", "remote", fallback=""):
        raise NoDataError(
            "DVC has no default remote to exchange bytes by: `dvc remote add -d store URL`, then commit .dvc/config "
            "and push"
        )
    config.read_dict({"cache": {"dir": str(machine / "cache")}})
    with (place / ".dvc" / "config.local").open("w", encoding="utf-8") as stream:
        config.write(stream)
    features = place / FEATURE_CACHE
    if not features.is_symlink():
        features.parent.mkdir(parents=True, exist_ok=True)
        (machine / "features").mkdir(exist_ok=True)
        features.symlink_to(machine / "features")


def to_pull(place: Path, dataset: Mapping[str, Any]) -> list[str]:
    """Return what `dvc pull` has to bring of a data set: its root if it is under DVC; nothing otherwise.

    With the images of a production line comes the report of their batches, which its drift is measured by.

    Args:
        place: folder of the slice.
        dataset: entry of params.yaml, with its name.

    Raises:
        NoDataError: workers cannot get the data set; the message says what to do.
    """
    name, root = dataset["name"], Path(dataset["root"])
    if root.is_absolute():
        if root.exists():
            return []
        raise NoDataError(
            f"datasets.{name}.root is {root}, which is not on this machine: mount it here, or copy it to "
            f"data/own/{root.name}, `dvc add data/own/{root.name} && dvc push`, and commit"
        )
    if under_dvc(place, root):
        report = root.with_name(ARRIVALS)
        return [path.as_posix() for path in (root, report) if path == root or (place / f"{report}.dvc").exists()]
    if (place / root).exists():  # in git
        return []
    raise NoDataError(
        f"datasets.{name}.root is {root}, which workers cannot get, since it is neither in git nor under DVC: "
        f"`dvc add {root} && dvc push`, then commit {root}.dvc and push; or keep it under the same absolute path on "
        f"every machine (root: /mnt/{root.name})"
    )


def pull_data(place: Path, data: Sequence[str]) -> None:
    """Bring the data set of a slice from DVC's remote.

    Args:
        place: folder of the slice.
        data: what `to_pull` returned.

    Raises:
        NoDataError: the remote does not have all of it.
        DvcError: the remote does not answer or is not on this machine, or the disk is full.
    """
    try:
        run_dvc(place, "pull", "--no-run-cache", *data)
    except dvc.DvcError as error:
        if any(words in str(error) for words in MISSING):
            folder = _remote_folder(place)
            if folder is not None and not folder.exists():  # which DVC takes for an empty one
                raise dvc.DvcError(
                    f"DVC's remote is the folder {folder}, which is not on this machine: mount it, or give its address "
                    "here with `dvc remote modify --local`"
                ) from None
            names = " ".join(data)
            raise NoDataError(
                f"DVC's remote does not have all of {names}: `dvc push {names}` where the images are\n{error}"
            ) from None
        raise


def _remote_folder(place: Path) -> Path | None:
    """Return the folder that is the slice's DVC remote; None if the remote is a server."""
    config = _config(place / ".dvc" / "config", place / ".dvc" / "config.local")
    name = config.get("core", "remote", fallback="")
    address = config.get(f"'remote \"{name}\"'", "url", fallback="")
    return None if not address or "://" in address else place / ".dvc" / address


def _config(*files: Path) -> configparser.ConfigParser:
    """Return DVC's settings; those of a later file hold."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(files)
    return config


def under_dvc(root: Path, path: Path) -> bool:
    """Return whether a path of the repository at `root`, or a folder above it, was put under DVC with `dvc add`."""
    return any((root / f"{one}.dvc").exists() for one in (path, *path.parents))


@retry_when_busy
def run_dvc(place: Path, *arguments: str) -> None:
    """Run a command of dvc, waiting for its lock.

    Raises:
        BusyError: another process kept the files busy for too long.
        DvcError: the command failed.
    """
    with dvc.running(["--wait-for-lock", *arguments], place) as process:
        said, _ = process.communicate()
    if process.returncode != 0:
        dvc.raise_if_busy(f"`dvc {arguments[0]}`", said, place)
        raise dvc.DvcError(f"`dvc {arguments[0]}` in {place} failed:\n{said.strip()[-2000:]}")
