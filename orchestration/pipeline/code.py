"""Code as a dependency: the modules that decide a stage's bytes, found by following its imports.

The search begins at `orchestration/stages/<stage>.py`. A module reaches the modules that it imports, at its top or
inside a function, and the modules that it names as "package.module:Class", as registries do. Imports for type checkers
decide nothing and do not count. Stage `code` of dvc.yaml writes one listing per stage, `data/code/<stage>.csv`. For its
code, the stage depends on this listing alone.

Code outside these packages is not followed. constraints.txt pins the versions of libraries. The version of a class that
is not built in is in the setting that names the class (`orchestration.pipeline.settings`).
"""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from llbnad.errors import LlbnadError
from llbnad.utils.files import file_digest, write_csv
from orchestration.pipeline.paths import DATA, STAGES

STAGE = "code"
PACKAGES = ("llbnad", "orchestration")
ENTRIES = {  # the module each listing begins at
    "params": "orchestration.stages.params",
    **{stage: f"orchestration.stages.{stage}" for stage in STAGES},
    "benchmark": "orchestration.commands.benchmark",
}
LEFT_OUT = {  # modules and packages that decide no byte of an output
    "orchestration.tracking": "records what a stage made",
    "orchestration.pipeline.defaults": "refuses an edit without effect",
    "orchestration.pipeline.verify": "refuses damaged inputs and reads none of them for a stage",
    "llbnad.config": "settings: each stage depends on a file with its own",
    "llbnad.scenario": "settings",
    "orchestration.pipeline.params": "settings",
}
NAMED_CLASS = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")


class ChangedError(LlbnadError):
    """A file that a stage works with has changed while the stage ran."""


def listing_path(entry: str) -> Path:
    """Return the path of an entry's listing, relative to the repository's root. It holds modules and their digests."""
    return DATA / STAGE / f"{entry}.csv"


def listings(root: Path) -> dict[str, pd.DataFrame]:
    """Return the modules that each entry of `ENTRIES` reaches: columns path (POSIX, relative to `root`) and sha256."""
    graph = _Graph(root)
    digests: dict[Path, str] = {}
    found = {}
    for entry, start in ENTRIES.items():
        files = graph.closure(start)
        digests |= {file: file_digest(root / file) for file in files if file not in digests}
        found[entry] = pd.DataFrame([(file.as_posix(), digests[file]) for file in files], columns=["path", "sha256"])
    return found


def write_listings(root: Path) -> dict[str, pd.DataFrame]:
    """Write all listings and return them."""
    found = listings(root)
    for entry, table in found.items():
        write_csv(table, root / listing_path(entry))
    return found


def differences(root: Path) -> dict[Path, list[str]]:
    """Return the listings, relative to `root`, that differ from those of the current code, with the modules at fault.

    A listing that is missing differs in all of its modules.
    """
    found = {}
    for entry, table in listings(root).items():
        path = listing_path(entry)
        held = pd.read_csv(root / path) if (root / path).exists() else table.head(0)
        if not held.equals(table):
            lines = [set(zip(one["path"], one["sha256"], strict=True)) for one in (held, table)]
            found[path] = sorted({name for name, _ in lines[0] ^ lines[1]})
    return found


def are_current(root: Path) -> bool:
    """Return whether the listings on disk equal the listings of the current code."""
    return not differences(root)


def code_version(command: str, listing: pd.DataFrame) -> str:
    """Return a digest of a stage's command and of the code that the stage reaches."""
    return hashlib.sha256((command + listing.to_csv(index=False)).encode()).hexdigest()[:16]


def listed_files(root: Path, stage: str) -> list[Path]:
    """Return the files of the code of `stage`, as listed.

    Raises:
        ChangedError: the listing is missing, or a file differs from it, so that DVC would record other code than has
            run.
    """
    path = root / listing_path(stage)
    if not path.exists():
        raise ChangedError(f"{path} is missing, so nobody could say which code made the outputs: run `dvc repro code`")
    table = pd.read_csv(path)
    for name, digest in zip(table["path"], table["sha256"], strict=True):
        file = root / name
        if not file.exists() or file_digest(file) != digest:
            raise ChangedError(f"{name} is not the file that {path} lists, so the outputs are not recorded: run again")
    return [root / name for name in table["path"]]


class _Graph:
    """The import graph of our packages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._imports: dict[str, set[str]] = {}

    def closure(self, start: str) -> list[Path]:
        """Return the files of `start` and of all modules that it reaches, relative to the root, sorted."""
        reached: set[str] = set()
        waiting = {start}
        while waiting:
            module = waiting.pop()
            reached.add(module)
            waiting |= self.imports(module) - reached
        return sorted(file for module in reached if (file := self._file(module)) is not None)

    def imports(self, module: str) -> set[str]:
        """Return the modules of our packages that `module` reaches directly, without the modules left out."""
        if module not in self._imports:
            file = self._file(module)
            named = _named((self.root / file).read_text()) if file else ()
            found = {name if self._file(name) else name.rpartition(".")[0] for name in named}
            self._imports[module] = {name for name in found if name and self._file(name) and not _left_out(name)}
        return self._imports[module]

    def _file(self, module: str) -> Path | None:
        place = Path(*module.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if (self.root / file).is_file():
                return file
        return None


@cache
def _named(source: str) -> frozenset[str]:
    """Return what a module with this source imports or names; the same source is parsed once."""
    return frozenset(_names(ast.parse(source)))


def _names(node: ast.AST) -> Iterator[str]:
    """Yield what a module imports or names of our packages; `from a import b` gives a.b, a module or not."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED_CLASS.fullmatch(node.value):
        yield node.value.partition(":")[0]
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


def _left_out(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT)
