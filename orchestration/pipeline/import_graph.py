"""The import graph of our packages: which files a module reaches.

A module reaches the modules that it imports, at its top or inside a function, and the modules that it names as
"package.module:Class", as registries do. Imports for type checkers decide nothing and do not count. Code outside our
packages is not followed.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("llbnad", "orchestration")
LEFT_OUT = {  # modules and packages that decide no byte of an output
    "orchestration.tracking": "records what a stage made",
    "orchestration.pipeline.defaults": "refuses an edit without effect",
    "orchestration.pipeline.verify": "refuses damaged inputs and reads none of them for a stage",
    "llbnad.config": "settings: each stage depends on a file with its own",
    "llbnad.scenario": "settings",
    "orchestration.pipeline.params": "settings",
}
SETTINGS = ("llbnad.config", "llbnad.scenario")
WITHOUT_SETTINGS_FILE = {  # read settings as people wrote them: a key that is missing has its value from these modules
    "orchestration.stages.raw": SETTINGS[:1],
    "orchestration.commands.benchmark": SETTINGS,
}
NAMED_CLASS = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")


class ImportGraph:
    """Modules, and what each one imports.

    Args:
        root: folder that holds our packages.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._imports: dict[str, set[str]] = {}

    def closure(self, start: str) -> list[Path]:
        """Return the files of `start`, of all modules that it reaches and of settings that it reads, sorted.

        Paths are relative to the root.
        """
        reached: set[str] = set()
        waiting = {start}
        while waiting:
            module = waiting.pop()
            reached.add(module)
            waiting |= self.imports(module) - reached
        reached |= {*WITHOUT_SETTINGS_FILE.get(start, ())}
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
