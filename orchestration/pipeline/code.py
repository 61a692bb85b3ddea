"""Code as a dependency: the modules that decide a stage's bytes, found by following its imports.

The search begins at `orchestration/stages/<stage>.py` (`orchestration.pipeline.import_graph`). Stage `code` of dvc.yaml
writes one listing per stage, `data/code/<stage>.csv`. For its code, the stage depends on this listing alone.

constraints.txt pins the versions of libraries. The version of a class that is not built in is in the setting that names
the class (`orchestration.pipeline.settings`).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from llbnad.errors import LlbnadError
from llbnad.utils.files import file_digest, replacing
from orchestration.pipeline.import_graph import ImportGraph
from orchestration.pipeline.paths import DATA, STAGES

Listing = Mapping[str, str]  # SHA-256 of a module's file, by its path: POSIX, relative to the repository's root

STAGE = "code"
HEAD = "path,sha256\n"
ENTRIES = {  # the module each listing begins at
    "params": "orchestration.stages.params",
    **{stage: f"orchestration.stages.{stage}" for stage in STAGES},
    "benchmark": "orchestration.commands.benchmark",
}


class ChangedError(LlbnadError):
    """A file that a stage works with is not the one that it was told of."""


class ChangedMeanwhileError(ChangedError):
    """A file has changed while a stage ran; the stage may succeed when it runs again."""


def listing_path(entry: str) -> Path:
    """Return the path of an entry's listing, relative to the repository's root. It holds modules and their digests."""
    return DATA / STAGE / f"{entry}.csv"


def listings(root: Path) -> dict[str, Listing]:
    """Return the modules that each entry of `ENTRIES` reaches, in the order of their paths."""
    graph = ImportGraph(root)
    digests: dict[Path, str] = {}
    found: dict[str, Listing] = {}
    for entry, start in ENTRIES.items():
        files = graph.closure(start)
        digests |= {file: file_digest(root / file) for file in files if file not in digests}
        found[entry] = {file.as_posix(): digests[file] for file in files}
    return found


def write_listings(root: Path) -> dict[str, Listing]:
    """Write all listings and return them."""
    found = listings(root)
    for entry, listing in found.items():
        with replacing(root / listing_path(entry)) as temporary:
            temporary.write_text(_text(listing))
    return found


def read_listing(root: Path, entry: str) -> Listing:
    """Return the listing of an entry as stage `code` wrote it last; empty if there is none."""
    path = root / listing_path(entry)
    lines = path.read_text().removeprefix(HEAD).splitlines() if path.exists() else []
    return {name: digest for name, _, digest in (line.rpartition(",") for line in lines)}


def differences(root: Path) -> dict[Path, list[str]]:
    """Return the listings, relative to `root`, that differ from those of the current code, with the modules at fault.

    A listing that is missing differs in all of its modules.
    """
    pairs = {listing_path(entry): (read_listing(root, entry), listing) for entry, listing in listings(root).items()}
    return {
        path: sorted({name for name, _ in held.items() ^ listing.items()})
        for path, (held, listing) in pairs.items()
        if held != listing
    }


def are_current(root: Path) -> bool:
    """Return whether the listings on disk equal the listings of the current code."""
    return not differences(root)


def code_version(command: str, listing: Listing) -> str:
    """Return a digest of a stage's command and of the code that the stage reaches."""
    return hashlib.sha256((command + _text(listing)).encode()).hexdigest()[:16]


def listed_files(root: Path, stage: str) -> list[Path]:
    """Return the files of the code of `stage`, as listed.

    Raises:
        ChangedError: the listing is missing, or a file differs from it, so that DVC would record other code than has
            run.
    """
    path = root / listing_path(stage)
    if not path.exists():
        raise ChangedError(f"{path} is missing, so nobody could say which code made the outputs: run `dvc repro code`")
    listing = read_listing(root, stage)
    for name, digest in listing.items():
        file = root / name
        if not file.exists() or file_digest(file) != digest:
            raise ChangedMeanwhileError(
                f"{name} is not the file that {path} lists, so the outputs are not recorded: run again"
            )
    return [root / name for name in listing]


def _text(listing: Listing) -> str:
    """Return a listing as CSV."""
    return HEAD + "".join(f"{name},{digest}\n" for name, digest in listing.items())
