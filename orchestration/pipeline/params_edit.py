"""The editing of params.yaml by a program: comments, anchors and all that is not changed stay the same, byte for byte.

New entries are added at the head of `datasets` and `scenarios`, because what stands behind the last entry, such as a
comment on the next section, would be taken for a part of it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml as pyyaml
from filelock import FileLock
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.mergevalue import MergeValue
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from llbnad.utils.files import replacing
from orchestration.pipeline.params import Params, load_params
from orchestration.pipeline.paths import PARAMS
from orchestration.pipeline.round_trip import read_round_trip, write_round_trip

Change = Callable[[Params, CommentedMap], bool]


def edit_params(root: Path, change: Change) -> bool:
    """Change params.yaml. Two programs that change it wait for each other.

    Args:
        root: root of the repository.
        change: changes the file's content in place, knowing the settings that it means; False leaves the file alone.

    Returns:
        whether the file was changed.

    Raises:
        ConfigError: params.yaml is wrong, before the change or after it; the file stays as it was.
    """
    path = root / PARAMS
    with FileLock(root / ".dvc" / "tmp" / "params.lock"):
        params = load_params(path)
        content = read_round_trip(path.read_text())
        if not change(params, content):
            return False
        with replacing(path) as temporary:
            temporary.write_text(write_round_trip(content))
            load_params(temporary, path.name)
    return True


def add_scenario_entry(content: CommentedMap, name: str, own: dict[str, Any]) -> None:
    """Add a scenario with the keys `own` on top of the shared `defaults`, at the head of `scenarios`.

    Args:
        content: the content of params.yaml.
        name: name of the scenario.
        own: its keys, in their order; those whose value is a mapping are written on one line.
    """
    defaults = content["defaults"]
    entry = CommentedMap({key: flow(value) if isinstance(value, dict) else value for key, value in own.items()})
    if defaults.yaml_anchor() is None:
        defaults.yaml_set_anchor("defaults")
    merge = MergeValue()
    merge.append(defaults)
    merge.merge_pos = 0
    entry.add_yaml_merge(merge)
    content["scenarios"].insert(0, text(name), entry)


def text(name: str) -> str:
    """Return a name as YAML text, in quotes where a reader would take it for another value."""
    # ruamel writes YAML 1.2, but the readers, PyYAML and DVC, take `yes` and `1_000` for other values than text
    return name if pyyaml.safe_load(name) == name else SingleQuotedScalarString(name)


def flow(content: dict[str, Any]) -> CommentedMap:
    """Return a mapping that is written on one line."""
    entry = CommentedMap(content)
    entry.fa.set_flow_style()
    return entry
