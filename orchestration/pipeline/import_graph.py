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
BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # fields of a statement that hold statements
NAMED_CLASS = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+:\w+")


class ImportGraph:
    """Modules, and what each one imports.

    Args:
        root: folder that holds our packages.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._imports: dict[str, set[str]] = {}
        self._files: dict[str, Path | None] = {}

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
        if module not in self._files:
            place = Path(*module.split("."))
            files = (place.with_suffix(".py"), place / "__init__.py")
            self._files[module] = next((file for file in files if (self.root / file).is_file()), None)
        return self._files[module]


@cache
def _named(source: str) -> frozenset[str]:
    """Return what a module with this source imports or names of our packages; the same source is parsed once.

    `from a import b` gives a.b, a module or not.
    """
    tree = ast.parse(source)
    found = set(_imported(tree))
    if NAMED_CLASS.search(source):
        found |= {
            node.value.partition(":")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED_CLASS.fullmatch(node.value)
        }
    return frozenset(found)


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield what is imported of our packages, at the top or inside. Only statements are read: no other code imports."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom):
            if node.module and node.module.split(".")[0] in PACKAGES:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            for block in BLOCKS:
                waiting += getattr(node, block, ())


def _left_out(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in LEFT_OUT)
