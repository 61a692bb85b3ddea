"""Which scenarios have something to do, told without DVC: a look at the files that each one's record names.

DVC needs half a minute for 120 scenarios that have not changed. When a slice is done, a fingerprint of the scenario is
kept: its settings, dvc.yaml, its entries in dvc.lock, and inode, size and time of every file that these name, which is
what DVC knows a file again by. While the fingerprint stays the same, the scenario has nothing to do. Where it differs,
or where there is none, DVC decides, in the slice.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestration.pipeline import dvc, lock_blocks
from orchestration.pipeline.busy import retry_when_busy
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import DATA, PARAMS
from orchestration.pipeline.settings import entry
from orchestration.pipeline.staleness import changed
from orchestration.slices.local_slice import FOLDER, SHARED

SHARED_FILES = tuple(f"{(DATA / name).as_posix()}/" for name in SHARED)  # written anew for another scenario's sake
ASK_DVC = 5  # scenarios without a fingerprint; for fewer, their slices are cheaper


class State:
    """The workspace as it is now.

    Args:
        root: root of the repository.
        params: content of its params.yaml.
    """

    def __init__(self, root: Path, params: Params) -> None:
        self.root, self.params = root, params
        self._pipeline = lock_blocks.read(root / "dvc.yaml")
        self._content = lock_blocks.read(root / PARAMS)
        self._signatures: dict[str, str] = {}
        self.order = lock_blocks.expanded(self._pipeline["stages"], self._content)
        self.blocks = lock_blocks.read_blocks(root)

    def stages(self, scenario: str) -> list[str]:
        """Return the stages of a scenario, without those that serve all scenarios."""
        dataset = self.params.scenario(scenario).dataset
        one = {**self._content, "scenarios": [scenario], "datasets": [dataset]}
        return [name for name in lock_blocks.expanded(self._pipeline["stages"], one) if name not in SHARED]

    def pending(self) -> list[str]:
        """Return the scenarios that may have something to do, in the order of params.yaml."""
        kept = {one: self._file(one).read_text() if self._file(one).exists() else "" for one in self.params.scenarios}
        found = [one for one, text in kept.items() if not text or text != self.fingerprint(one)]
        unknown = [one for one in found if not kept[one] and {*self.stages(one)} <= self.blocks.keys()]
        if len(unknown) < ASK_DVC:
            return found
        at_dvc = self._changed_for_dvc()
        for scenario in unknown:
            if not at_dvc & {*self.stages(scenario)}:
                self._file(scenario).parent.mkdir(parents=True, exist_ok=True)
                self._file(scenario).write_text(self.fingerprint(scenario))
                found.remove(scenario)
        return found

    def settle(self, scenario: str, started: float) -> None:
        """Keep the fingerprint of a scenario that is done, unless what it reads has changed since `started`."""
        blocks, paths = self._record(scenario)
        made = {path for block in blocks for path in lock_blocks.outputs(block)}
        inputs = [path for path in paths if not _inside(path, made) and not path.startswith(SHARED_FILES)]
        if all(file.stat().st_ctime < started for path in inputs for file in _files(self.root / path)):
            self._file(scenario).write_text(self.fingerprint(scenario))

    def fingerprint(self, scenario: str) -> str:
        """Return a digest of all that decides whether the scenario has something to do."""
        blocks, paths = self._record(scenario)
        dataset = self.params.dataset(self.params.scenario(scenario).dataset)
        content: list[Any] = [entry(self.params, scenario), dataset.model_dump(mode="json"), self._pipeline, blocks]
        content.append([(path, self._signature(path)) for path in sorted(paths)])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _record(self, scenario: str) -> tuple[list[str], set[str]]:
        """Return a scenario's entries in dvc.lock, and all paths that it reads or makes."""
        own = self.params.scenario(scenario)
        blocks = [self.blocks.get(name, "") for name in self.stages(scenario)]
        named = {path for block in blocks for path in lock_blocks.paths(block)}
        mask = [own.region.mask] if own.region and own.region.mask else []
        return blocks, named | {self.params.dataset(own.dataset).root, own.review, *mask}

    def _file(self, scenario: str) -> Path:
        return self.root / FOLDER / scenario / ".dvc" / "tmp" / "fingerprint"

    def _signature(self, path: str) -> str:
        """Return a digest of what DVC knows a path again by; of its content where another scenario renews the file."""
        if path not in self._signatures:
            by_content, digest = path.startswith(SHARED_FILES), hashlib.sha256()
            for file in _files(self.root / path):
                known = file.stat()
                seen = (
                    file.read_bytes() if by_content else f"{known.st_ino} {known.st_size} {known.st_mtime_ns}".encode()
                )
                digest.update(file.as_posix().encode() + b"\0" + seen + b"\0")
            self._signatures[path] = digest.hexdigest()
        return self._signatures[path]

    def _changed_for_dvc(self) -> set[str]:
        """Return the stages that `dvc status` calls changed, once nobody else works on them."""
        try:
            return {*retry_when_busy(changed)(self.root)}
        except dvc.DvcError:
            return {*self.order}  # DVC's reason comes up in the slices


def _files(path: Path) -> Iterator[Path]:
    """Yield the files at or below a path, sorted; nothing if there is none."""
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.name != ".gitignore" and file.is_file())
    elif path.exists():
        yield path


def _inside(path: str, folders: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in folders)
