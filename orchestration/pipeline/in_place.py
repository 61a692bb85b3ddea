"""Outputs that changed in place where DVC cannot see it: the check before every run, which reads next to nothing.

DVC knows an output again by inode, size and time. It repairs one that it sees to have changed. It does not see a change
that keeps all three, and it cannot repair a file that is the same inode as its copy in the cache (a hard link). A list
in `.dvc/tmp` holds the size, the times and the inode of each file that was whole. Only a file of which one of them is
another now is read again. The list is a help, no record: without it, everything is read once.
"""

import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llbnad.utils.files import file_digest, replacing
from orchestration.pipeline import dvc
from orchestration.pipeline.left_behind import written_now
from orchestration.pipeline.verify import DamagedError, damage_of, overlap, recorded_files

SEEN = Path(".dvc") / "tmp" / "llbnad-seen.json"
SeenFile = list[Any]  # recorded MD5, then inode, size, modification and change time: the first three are DVC's, too


def refuse_changed_in_place(root: Path) -> None:
    """Refuse to go on if an output has changed in place.

    Raises:
        DamagedError: a file has; the message lists all of them with the way back, one per line.
    """
    seen, whole, damaged = _read(root), {}, []
    left_out = written_now(root)
    for name, path, file, recorded in _outputs(root):
        mark = _mark(root / file, recorded)
        if mark is None:
            continue
        known = seen.get(file)
        if known == mark or (found := file_digest(root / file, "md5")) == recorded:
            whole[file] = mark
        elif not overlap(path, left_out):
            damage = damage_of(root, name, path, file, recorded, found)
            if known is not None:
                whole[file] = known  # how it looked when it was whole
            if damage.linked or (known or [])[:4] == mark[:4]:
                damaged.append(damage)
    _write(root, whole, seen)
    if damaged:
        raise DamagedError("\n".join([f"{len(damaged)} files are damaged", *map(str, damaged)]))


def remember(root: Path, since: float) -> None:
    """Note how all outputs look that are whole.

    Args:
        root: root of the repository.
        since: time at which a run of `dvc repro` began that has ended well: what is younger was hashed by DVC itself.
    """
    seen, whole = _read(root), {}
    for _, _, file, recorded in _outputs(root):
        mark = _mark(root / file, recorded)
        if mark is None:
            continue
        young = mark[4] >= since * 1e9  # change time
        if seen.get(file) == mark or young or file_digest(root / file, "md5") == recorded:
            whole[file] = mark
    _write(root, whole, seen)


def _outputs(root: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield stage, output, file and recorded MD5 of every file in dvc.lock; a folder of unknown content is left out."""
    for name, entry in dvc.read_lock(root).get("stages", {}).items():
        for out in entry.get("outs", []):
            for file, recorded in recorded_files(root, out["path"], out["md5"]):
                yield name, out["path"], file, recorded


def _mark(path: Path, recorded: str) -> SeenFile | None:
    """Return the mark of a file; None for a folder, and where nothing is, which DVC sees itself."""
    try:
        found = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return [recorded, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read(root: Path) -> dict[str, SeenFile]:
    try:
        content = json.loads((root / SEEN).read_bytes())
    except (OSError, ValueError):
        return {}
    return {file: mark for file, mark in content.items() if isinstance(mark, list)} if isinstance(content, dict) else {}


def _write(root: Path, whole: Mapping[str, SeenFile], before: Mapping[str, SeenFile]) -> None:
    if whole == before:
        return
    with replacing(root / SEEN) as temporary:
        temporary.write_text(json.dumps(whole))
