"""An edit of `defaults` in params.yaml that reaches no scenario, and the refusal of it.

`defaults` reaches a scenario by YAML's merge, `<<: *defaults`. `dvc exp run -S` writes params.yaml anew with every
merge spelled out. From then on `defaults` means nothing: `-S defaults.seed=5` and later edits would change nothing, in
silence.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llbnad.errors import ConfigError
from orchestration.pipeline.params import Params
from orchestration.pipeline.paths import DATA, PARAMS
from orchestration.pipeline.settings import SPLIT, entry_path

MERGE = re.compile(r"<<\s*:")
RECORD = DATA / SPLIT / "_defaults.json"  # no scenario's name begins like this


def refuse_edit_without_effect(root: Path, params: Params, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a params.yaml without merges whose `defaults` have changed since stage `params` ran, and no scenario has.

    Args:
        root: root of the repository, with what the stage wrote before.
        params: content of its params.yaml.
        entries: what the stage will write, by scenario.

    Raises:
        ConfigError: a key of `defaults` has changed, and no scenario follows.
    """
    if MERGE.search((root / PARAMS).read_text(encoding="utf-8")):
        return
    before, now = _read(root / RECORD), recorded(params)
    for key in [key for key in now if key in before and now[key] != before[key]]:
        if all(own[key] == _read(root / entry_path(name)).get(key) for name, own in entries.items()):
            raise ConfigError(
                f"{PARAMS}: defaults.{key} is now {now[key]!r:.80}, but every scenario spells out its own {key}, so "
                f"nothing would change. `dvc exp run -S` writes them out: name scenarios.NAME.{key} there, or take the "
                f"file back with `git checkout {PARAMS}` and edit it"
            )


def recorded(params: Params) -> dict[str, Any]:
    """Return what stage `params` writes into `RECORD`."""
    return params.defaults.model_dump(mode="json")


def _read(path: Path) -> dict[str, Any]:
    """Return what the stage wrote before; nothing where it is missing or damaged, since it is written anew."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content
